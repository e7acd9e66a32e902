"""How are answers judged? Every call once, journalled, within a budget, and the same after any interruption.

A call that fails and a reply without a verdict are tried again a few times at once and once more by every later run;
what is scored is never asked again. Judgments are read back from the journal alone.
"""

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from slackdlm.errors import ConfigError, DataError
from slackdlm.evaluation.benchmarks.items import Answer, Question
from slackdlm.evaluation.journal import Entry, Journal, content_hash, item_key
from slackdlm.evaluation.jsonl import Row
from slackdlm.evaluation.judges import Call, CallFailed, Judge, estimate_tokens
from slackdlm.evaluation.judgments import Game, Grade, GradeStatus, Tally, tally
from slackdlm.evaluation.protocols import JudgingProtocol

TRIES = 4
"""Calls for one judgment in one run, until a reply holds a verdict."""
PROTOCOL_VERSION = 1
"""Of how calls are made and replies read here; part of every judgment's identity."""


class Planned(NamedTuple):
    """One judgment to be made."""

    question: Question
    systems: tuple[str, ...]
    """Whose answers: one system to grade, or ``a`` and ``b``."""
    order: Literal[0, 1]
    turn: int
    call: Call | None
    """``None`` if there is nothing to ask."""
    key: str
    """Of the journal; empty without a call."""
    missing: str = ""
    """Whose answer there is not, if so."""
    decided: str | float | None = None
    """What the protocol says by itself, such as of empty answers."""
    answers: tuple[tuple[str, ...] | None, ...] = ()
    """The turns of each system's answer, in the order of ``systems``."""


class _Spent(NamedTuple):
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0
    """``None`` as soon as one call's cost is unknown."""

    def plus(self, other: "_Spent") -> "_Spent":
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return _Spent(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            usd,
        )


class Judged(NamedTuple):
    """Judgments in the order of the questions, and what they took."""

    judgments: list[Game] | list[Grade]
    """One for each that was to be made; those without a score say why in ``extra["error"]``."""
    tally: Tally
    new_calls: int
    """Calls of this run."""
    new_usd: float | None
    """Their cost; ``None`` if a price or a count of tokens is not known."""
    calls: int
    """Calls behind all these judgments, those of earlier runs included."""
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    """Cost of all of them."""
    stopped: str | None
    """Why the run ended before all was asked; ``None`` if it did not."""


@dataclass
class Budget:
    """How much a run may ask; safe to share between threads."""

    max_calls: int | None = None
    """Calls, repeated ones included; ``None``: any number."""
    max_usd: float | None = None
    """Cost. No call is begun that could exceed it together with those under way."""

    def __post_init__(self) -> None:
        """Raises ConfigError where a limit is negative or no number."""
        for name, limit in (("--max-calls", self.max_calls), ("--max-usd", self.max_usd)):
            if limit is not None and not 0 <= limit < float("inf"):
                raise ConfigError(f"{name}: expected at least 0, got {limit}")
        self._lock = threading.Lock()
        self._calls = 0
        self._usd = 0.0
        self._under_way = 0.0

    def begin(self, worst_usd: float | None) -> bool:
        """Whether one more call may begin; it is counted if so."""
        with self._lock:
            if self.max_calls is not None and self._calls >= self.max_calls:
                return False
            if self.max_usd is not None:
                if worst_usd is None:
                    raise ConfigError("--max-usd: the judge's prices are not known; give them too")
                if self._usd + self._under_way + worst_usd > self.max_usd:
                    return False
            self._calls += 1
            self._under_way += worst_usd or 0.0
            return True

    def end(self, worst_usd: float | None, usd: float | None) -> None:
        """Account for a call that is over; of unknown cost, it is taken to have cost the most."""
        with self._lock:
            self._under_way -= worst_usd or 0.0
            self._usd += (worst_usd or 0.0) if usd is None else usd

    @property
    def stopped(self) -> str:
        """What a run says that it ended."""
        limits = (("--max-calls", self.max_calls), ("--max-usd", self.max_usd))
        given = [f"{name} {limit:g}" for name, limit in limits if limit is not None]
        return f"the limit of {' and '.join(given)} is reached"


def judge_identity(protocol: JudgingProtocol, judge: Judge, *, baseline: str | None) -> Row:
    """Everything two judgments must share to be comparable."""
    return {
        "benchmark": protocol.name,
        "judge": judge.name,
        "settings": judge.settings,
        "prompts_sha256": protocol.prompts_sha256(),
        "protocol_version": PROTOCOL_VERSION,
        "baseline": baseline,
    }


def plan_judgments(
    protocol: JudgingProtocol,
    judge: Judge,
    questions: Sequence[Question],
    answers: Sequence[Answer],
    baseline: Sequence[Answer] | None,
) -> list[Planned]:
    """Every judgment of every system in ``answers``, in the order of systems and questions.

    Args:
        protocol: Of the benchmark.
        judge: Who will be asked.
        questions: All of them count: one without an answer is a judgment that is missing.
        answers: Of one or more systems.
        baseline: Of one system; needed where answers are compared, and there alone.

    Raises:
        DataError: If the baseline is missing, of several systems, or one of those compared to it; if answers are to
            questions that are not asked.
    """
    by_system = _by_system(answers, questions, what="the answers")
    base = _baseline(protocol, by_system, baseline, questions)
    against = () if base is None else (base[0],)
    orders: tuple[Literal[0, 1], ...] = (0,) if base is None else (0, 1)
    identity = judge_identity(protocol, judge, baseline=None if base is None else base[0])
    return [
        _plan(
            protocol,
            identity,
            question,
            (system, *against),
            [answered.get(question.id), *([] if base is None else [base[1].get(question.id)])],
            order=order,
            turn=turn,
        )
        for system, answered in by_system.items()
        for question in questions
        for turn in range(1, 1 + protocol.num_turns(question))
        for order in orders
    ]


def judge_answers(
    protocol: JudgingProtocol,
    judge: Judge,
    questions: Sequence[Question],
    answers: Sequence[Answer],
    *,
    baseline: Sequence[Answer] | None = None,
    journal: Path,
    budget: Budget | None = None,
    on_judged: Callable[[int, float | None], None] | None = None,
) -> Judged:
    """Judge answers; what the journal holds is not asked again.

    Args:
        protocol: Of the benchmark.
        judge: Whom to ask.
        questions: Of the benchmark.
        answers: Of one or more systems.
        baseline: Of the system they are compared to.
        journal: SQLite file; other processes may use it at the same time.
        budget: Limits of this run.
        on_judged: Called with the judgments just finished, those of earlier runs first, and the cost of this run.

    Raises:
        DataError: As `plan_judgments`; if the journal cannot be used.
        ConfigError: If the judge can never reply, such as for a wrong key.
    """
    planned = plan_judgments(protocol, judge, questions, answers, baseline)
    name = None if baseline is None else baseline[0].system
    identity = judge_identity(protocol, judge, baseline=name)
    with Journal(journal) as opened:
        run = _Run(protocol, judge, identity, opened, budget or Budget(), on_judged)
        stopped = run.ask(planned)
        return run.collect(planned, stopped=stopped)


class _Run:
    """One run over the judgments that are missing."""

    def __init__(
        self,
        protocol: JudgingProtocol,
        judge: Judge,
        identity: Row,
        journal: Journal,
        budget: Budget,
        on_judged: Callable[[int, float | None], None] | None,
    ) -> None:
        self.protocol = protocol
        self.judge = judge
        self.identity = identity
        self.journal = journal
        self.budget = budget
        self.on_judged = on_judged
        self.spent = _Spent()
        self.failures_in_a_row = 0

    def ask(self, items: Sequence[Planned]) -> str | None:
        """Ask for all that is missing; says why if not all was asked."""
        waiting = self._waiting(items)
        under_way: dict[Future[Row | None], Planned] = {}
        stopped: str | None = None
        with ThreadPoolExecutor(self.judge.concurrency) as pool:
            try:
                while True:
                    while stopped is None and len(under_way) < self.judge.concurrency:
                        item = next(waiting, None)
                        if item is None:
                            break
                        under_way[pool.submit(self._try, item[1])] = item[0]
                    if not under_way:
                        return stopped
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        payload = future.result()
                        stopped = self._finish(under_way.pop(future), payload) or stopped
            finally:
                # Whatever ended this: replies under way are paid for, so they are kept.
                for future, item in under_way.items():
                    if future.exception() is None and (payload := future.result()) is not None:
                        self._record(item, payload)

    def _waiting(self, planned: Sequence[Planned]) -> Iterator[tuple[Planned, Call]]:
        """What no process has judged yet, a question's calls together.

        The order of the questions is drawn by each process for itself, so that two on one journal rarely meet.
        """
        # Two systems may have given the same answer: that is one thing to judge.
        items = {item.key: (item, item.call) for item in planned if item.call is not None}
        pending = [pair for key, pair in items.items() if not self.journal.is_done(key)]
        self._report(len(planned) - len(pending))
        by_question: dict[str, list[tuple[Planned, Call]]] = {}
        for item, call in pending:
            by_question.setdefault(item.question.id, []).append((item, call))
        groups = list(by_question.values())
        random.Random(os.getpid()).shuffle(groups)
        for item, call in (pair for group in groups for pair in group):
            if self.journal.is_done(item.key):
                self._report(1)
            else:
                yield item, call

    def _try(self, call: Call) -> Row | None:
        """In a thread: call until there is a verdict; ``None`` if the budget was spent before the first call."""
        spent, error, text = _Spent(), "", None
        for _ in range(TRIES):
            worst = self.judge.worst_usd(call)
            if not self.budget.begin(worst):
                if spent.calls == 0:
                    return None
                break
            usd: float | None = None
            try:
                reply = self.judge.reply(call)
                usd = reply.usd
            except CallFailed as failure:
                # Nothing is paid for a call without a reply.
                usd = 0.0
                spent = spent.plus(_Spent(1))
                error, text = str(failure), None
                if failure.again:
                    continue
                break
            finally:
                self.budget.end(worst, usd)
            tokens = (reply.prompt_tokens, reply.completion_tokens)
            known = None if None in tokens else usd
            spent = spent.plus(_Spent(1, tokens[0] or 0, tokens[1] or 0, known))
            text, error = reply.text, ""
            if self.protocol.parse(text) is not None:
                break
            error = "the reply holds no verdict"
        return {"reply": text, "error": error, "spent": spent._asdict()}

    def _finish(self, item: Planned, payload: Row | None) -> str | None:
        """Record one outcome; says why if the run must end."""
        if payload is None:
            return self.budget.stopped
        self._record(item, payload)
        self._report(1)
        no_reply = payload["reply"] is None
        self.failures_in_a_row = self.failures_in_a_row + 1 if no_reply else 0
        if self.failures_in_a_row == self.judge.gives_up_after:
            return (
                f"{self.failures_in_a_row} calls in a row failed, the last with: {payload['error']}"
            )
        return None

    def _record(self, item: Planned, payload: Row) -> None:
        now = _Spent(**payload["spent"])
        self.spent = self.spent.plus(now)
        before = self.journal.get(item.key)
        if before is not None and before.status == "failed":
            payload["spent"] = now.plus(_Spent(**before.payload["spent"]))._asdict()
        status = "failed" if payload["error"] else "ok"
        self.journal.record(item.key, payload, identity=self.identity, status=status)

    def _report(self, count: int) -> None:
        if self.on_judged is not None and count:
            self.on_judged(count, self.spent.usd)

    def collect(self, planned: Sequence[Planned], *, stopped: str | None) -> Judged:
        """All judgments, from the journal."""
        judgments: list[Any] = []
        entries: dict[str, Entry | None] = {"": None}
        total = _Spent()
        for item in planned:
            if item.key not in entries:
                entry = entries[item.key] = self.journal.get(item.key)
                if entry is not None:
                    total = total.plus(_Spent(**entry.payload["spent"]))
            entry = entries[item.key]
            judgments.append(_judgment(self.protocol, item, entry, self.identity))
        return Judged(
            judgments=judgments,
            tally=tally(judgments),
            new_calls=self.spent.calls,
            new_usd=self.spent.usd,
            calls=total.calls,
            prompt_tokens=total.prompt_tokens,
            completion_tokens=total.completion_tokens,
            usd=total.usd,
            stopped=stopped,
        )


class DryRun(NamedTuple):
    """What a run would ask."""

    num_judgments: int
    num_done: int
    """Already in the journal."""
    num_without_call: int
    """With nothing to ask: an answer is missing, or the protocol decides by itself."""
    num_calls: int
    """One per judgment that is missing; replies without a verdict add to it."""
    prompt_tokens: int
    """Guessed from the length of the prompts."""
    worst_usd: float | None
    """If every prompt were twice the guess and every reply of full length; ``None``: no prices."""

    @property
    def cost(self) -> str:
        """``worst_usd`` in words."""
        return "not known" if self.worst_usd is None else f"at most about {self.worst_usd:.2f} USD"


def dry_run(judge: Judge, planned: Sequence[Planned], *, journal: Path | None = None) -> DryRun:
    """Count what a run would ask, and ask nothing; without a journal nothing is done yet."""
    calls = list({item.key: item for item in planned if item.call is not None}.values())
    missing = calls
    if journal is not None and journal.exists():
        with Journal(journal) as opened:
            missing = [item for item in calls if not opened.is_done(item.key)]
    asked = [item.call for item in missing if item.call is not None]
    costs = [judge.worst_usd(call) for call in asked]
    return DryRun(
        num_judgments=len(planned),
        num_done=len(calls) - len(missing),
        num_without_call=sum(item.call is None for item in planned),
        num_calls=len(asked),
        prompt_tokens=sum(estimate_tokens(call.messages) for call in asked),
        worst_usd=None if None in costs else sum(cost or 0.0 for cost in costs),
    )


def _by_system(
    answers: Sequence[Answer], questions: Sequence[Question], *, what: str
) -> dict[str, dict[str, Answer]]:
    asked = {question.id for question in questions}
    found: dict[str, dict[str, Answer]] = {}
    for answer in answers:
        if answer.question_id in asked:
            answered = found.setdefault(answer.system, {})
            if answer.question_id in answered:
                raise DataError(
                    f"{what}: {answer.system!a} answers question {answer.question_id!a} twice; keep one"
                )
            answered[answer.question_id] = answer
    if not found:
        raise DataError(
            f"{what}: none of them is to one of the {len(asked)} questions; use the same files"
        )
    return found


def _baseline(
    protocol: JudgingProtocol,
    by_system: dict[str, dict[str, Answer]],
    baseline: Sequence[Answer] | None,
    questions: Sequence[Question],
) -> tuple[str, dict[str, Answer]] | None:
    if protocol.num_shown == 1:
        if baseline is not None:
            raise DataError(f"{protocol.name}: answers are graded one by one; give no baseline")
        return None
    if baseline is None:
        raise DataError(f"{protocol.name}: answers are compared; give the baseline's answers")
    found = _by_system(baseline, questions, what="the baseline")
    if len(found) != 1:
        raise DataError(f"the baseline: expected one system, got {', '.join(map(ascii, found))}")
    ((name, answered),) = found.items()
    if name in by_system:
        raise DataError(
            f"the baseline and the system judged are both called {name!a}; if they are two systems, answer one again "
            "with another --name (nothing is decoded again), or rename it in its file"
        )
    return name, answered


def _plan(
    protocol: JudgingProtocol,
    identity: Row,
    question: Question,
    systems: tuple[str, ...],
    shown: Sequence[Answer | None],
    *,
    order: Literal[0, 1],
    turn: int,
) -> Planned:
    told = tuple(None if answer is None else answer.turns for answer in shown)
    nothing = Planned(question, systems, order, turn, None, "", answers=told)
    turns: list[tuple[str, ...]] = []
    for system, answer in zip(systems, shown, strict=True):
        if answer is None or len(answer.turns) < turn:
            what = f"turn {turn} has" if turn > 1 else "there is"
            return nothing._replace(missing=f"{what} no answer of {system!a}")
        turns.append(answer.turns)
    if order == 1:
        turns.reverse()
    decided = protocol.without_judge([texts[turn - 1] for texts in turns])
    if decided is not None:
        return nothing._replace(decided=decided)
    messages = protocol.messages(question, turns, turn)
    call = Call(messages, question, tuple(turns), order, protocol.first_token)
    item = {
        "question": question.id,
        "messages": content_hash([dict(message) for message in messages]),
        "order": order,
        "turn": turn,
    }
    return nothing._replace(call=call, key=item_key(identity, item))


def _judgment(
    protocol: JudgingProtocol, item: Planned, entry: Entry | None, identity: Row
) -> Game | Grade:
    reply: str | None = None
    error = item.missing or "not asked"
    verdict: Any = item.decided
    if verdict is not None:
        error = ""
    elif entry is not None:
        reply, error = entry.payload["reply"], entry.payload["error"]
        verdict = None if reply is None else protocol.parse(reply)
    score = None if verdict is None else protocol.score(verdict, item.order)
    status: GradeStatus = "ok"
    if score is None:
        status = "failed" if reply is None else "unparsable"
    elif not protocol.scale[0] <= score <= protocol.scale[1]:
        status = "out_of_range"
    shared: Row = {
        "question_id": item.question.id,
        "turn": item.turn,
        "score": score,
        "status": status,
        "category": item.question.category,
        "judge_identity": identity,
        "reply": reply,
        "prompt": None if item.call is None else item.call.messages,
        "extra": {"error": error} if error else {},
    }
    if protocol.num_shown == 1:
        grade = Grade(system=item.systems[0], **shared)
        return protocol.finish_grade(grade, item.question, item.answers[0])
    shown_verdict = None if verdict is None else str(verdict)
    a, b = item.systems
    game = Game(a=a, b=b, order=item.order, verdict=shown_verdict, **shared)
    return protocol.finish_game(game, item.question, item.answers)
