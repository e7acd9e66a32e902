"""How are answers judged? Every call once, journalled, within a budget, and the same after any interruption.

A call that fails and a reply without a verdict are tried again a few times at once and once more by every later run;
what is scored is never asked again. Judgments are read back from the journal alone.
"""

import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from slackdlm.errors import ConfigError
from slackdlm.journal import Entry, Journal
from slackdlm.jsonl import Row
from slackdlm.judging.budget import Budget, Spent
from slackdlm.judging.judges import CUT_OFF, Call, CallFailed, ExactJudge, Judge, why_unfinished
from slackdlm.judging.plan import Planned, plan_judgments
from slackdlm.judging.protocols import JudgingProtocol
from slackdlm.judgments import Game, Grade, GradeStatus, Tally, tally
from slackdlm.records import Answer, Question

_LOG = logging.getLogger(__name__)
TRIES = 4
"""Calls for one judgment in one run, until a reply holds a verdict."""


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


def judge_answers(
    protocol: JudgingProtocol,
    judge: Judge,
    questions: Sequence[Question],
    answers: Sequence[Answer],
    *,
    baseline: Sequence[Answer] | None = None,
    journal: Path | None,
    budget: Budget | None = None,
    on_plan: Callable[[int], None] | None = None,
    on_judged: Callable[[int, float | None], None] | None = None,
) -> Judged:
    """Judge answers; what the journal holds is not asked again.

    Args:
        protocol: Of the benchmark.
        judge: Whom to ask.
        questions: Of the benchmark.
        answers: Of one or more systems.
        baseline: Of the system they are compared to.
        journal: Its folder; other processes may use it at the same time. ``None``: every judgment is made again, which
            only an exact judge does for nothing.
        budget: Limits of this run.
        on_plan: Called once with the number of judgments.
        on_judged: Called with the judgments just finished, those of earlier runs first, and the cost of this run.

    Raises:
        DataError: As `plan_judgments`; if the journal cannot be used.
        ConfigError: If the judge can never reply, such as for a wrong key; if one that is not exact has no journal.
    """
    if journal is None and not isinstance(judge, ExactJudge):
        raise ConfigError(f"judge {judge.name}: only an exact judge needs no journal; give one")
    planned = plan_judgments(protocol, judge, questions, answers, baseline)
    if on_plan is not None:
        on_plan(len(planned))
    run = _Run(protocol, judge, Journal(journal), budget or Budget(), on_judged)
    stopped = run.ask(planned)
    judged = run.collect(planned, stopped=stopped)
    num_cut = sum(why_unfinished(one) == CUT_OFF for one in judged.judgments)
    if num_cut:
        _LOG.warning("%d of %d judgments have no verdict: %s", num_cut, len(planned), CUT_OFF)
    return judged


class _Run:
    """One run over the judgments that are missing."""

    def __init__(
        self,
        protocol: JudgingProtocol,
        judge: Judge,
        journal: Journal,
        budget: Budget,
        on_judged: Callable[[int, float | None], None] | None,
    ) -> None:
        self.protocol = protocol
        self.judge = judge
        self.journal = journal
        self.budget = budget
        self.on_judged = on_judged
        self.spent = Spent()
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
        spent, error, text = Spent(), "", None
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
                spent = spent.plus(Spent(1))
                error, text = str(failure), None
                if failure.again:
                    continue
                break
            finally:
                self.budget.end(worst, usd)
            tokens = (reply.prompt_tokens or 0, reply.completion_tokens or 0)
            spent = spent.plus(Spent(1, *tokens, usd))
            text, error = reply.text, reply.unfinished
            # The same limit would most likely cut the same reply short again.
            if error or self.protocol.parse(text) is not None:
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
        now = Spent(**payload["spent"])
        self.spent = self.spent.plus(now)
        before = self.journal.get(item.key)
        if before is not None and before.status == "failed":
            payload["spent"] = now.plus(Spent(**before.payload["spent"]))._asdict()
        status = "failed" if payload["error"] else "ok"
        self.journal.record(Entry(item.key, status, payload))

    def _report(self, count: int) -> None:
        if self.on_judged is not None and count:
            self.on_judged(count, self.spent.usd)

    def collect(self, planned: Sequence[Planned], *, stopped: str | None) -> Judged:
        """All judgments, from the journal."""
        judgments: list[Any] = []
        entries: dict[str, Entry | None] = {"": None}
        total = Spent()
        for item in planned:
            if item.key not in entries:
                entry = entries[item.key] = self.journal.get(item.key)
                if entry is not None:
                    total = total.plus(Spent(**entry.payload["spent"]))
            entry = entries[item.key]
            judgments.append(_judgment(self.protocol, item, entry))
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


def _judgment(protocol: JudgingProtocol, item: Planned, entry: Entry | None) -> Game | Grade:
    reply: str | None = None
    error = item.missing or "not asked"
    verdict: Any = item.decided
    if verdict is not None:
        error = ""
    elif entry is not None:
        reply, error = entry.payload["reply"], entry.payload["error"]
        verdict = None if reply is None or error else protocol.parse(reply)
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
        "judge_identity": item.identity,
        "reply": reply,
        "prompt": None if item.call is None else item.call.messages,
        "extra": {"error": error} if error else {},
    }
    if protocol.num_shown == 1:
        grade = Grade(system=item.systems[0], **shared)
        if protocol.finish_grade is None:
            return grade
        return protocol.finish_grade(grade, item.question, item.answers[0])
    shown_verdict = None if verdict is None else str(verdict)
    a, b = item.systems
    game = Game(a=a, b=b, order=item.order, verdict=shown_verdict, **shared)
    if protocol.finish_game is None:
        return game
    return protocol.finish_game(game, item.question, item.answers)
