"""How are answers judged? Every call once, journalled, within a budget, and the same after any interruption.

A call that fails and a reply without a verdict are tried again a few times at once and once more by every later run;
what is scored is never asked again. Judgments are read back from the journal alone.
"""

import logging
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from slackdlm.errors import ConfigError, DataError
from slackdlm.journal import Entry, Journal
from slackdlm.jsonl import Row
from slackdlm.judging.budget import Budget, Spent
from slackdlm.judging.judges import CUT_OFF, Call, CallFailed, ExactJudge, why_unfinished
from slackdlm.judging.plan import Plan, Planned
from slackdlm.judgments import Game, Grade, GradeStatus, Tally, tally

_LOG = logging.getLogger(__name__)
TRIES = 4
"""Calls for one judgment in one run, until a reply holds a verdict."""


class Judged(NamedTuple):
    """Judgments in the order of the questions, and what they took."""

    judgments: list[Game] | list[Grade]
    """One for each that was to be made; those without a score say why in ``extra["error"]``."""
    tally: Tally
    new: Spent
    """What this run took."""
    total: Spent
    """What all these judgments took, earlier runs included."""
    stopped: str | None
    """Why the run ended before all was asked; ``None`` if it did not."""


def judge_answers(
    plan: Plan,
    *,
    journal: Path | None,
    budget: Budget | None = None,
    on_judged: Callable[[int, float | None], None] | None = None,
) -> Judged:
    """Make the judgments that the journal does not hold, and return all of them.

    Args:
        plan: What is judged, and by whom.
        journal: Its folder; other processes may use it at the same time. ``None``: every judgment is made again, which
            only an exact judge does for nothing.
        budget: Limits of this run.
        on_judged: Called with the judgments just finished, those of earlier runs first, and the cost of this run.

    Raises:
        DataError: If the journal cannot be used.
        ConfigError: If the judge can never reply, such as for a wrong key; if one that is not exact has no journal.
    """
    if journal is None and not isinstance(plan.judge, ExactJudge):
        raise ConfigError(
            f"judge {plan.judge.name}: only an exact judge needs no journal; give one"
        )
    run = _Run(plan, Journal(journal), budget or Budget(), on_judged or (lambda count, usd: None))
    stopped = run.ask()
    entries = {key: entry for key in plan.calls() if (entry := run.journal.get(key)) is not None}
    judgments: list[Any] = [_judgment(plan, item, entries.get(item.key)) for item in plan.items]
    num_cut = sum(why_unfinished(judgment) == CUT_OFF for judgment in judgments)
    if num_cut:
        _LOG.warning("%d of %d judgments have no verdict: %s", num_cut, len(judgments), CUT_OFF)
    total = Spent()
    for entry in entries.values():
        total = total.plus(Spent(**entry.payload["spent"]))
    return Judged(judgments, tally(judgments), run.spent, total, stopped)


class _Run:
    """One run over the judgments that are missing."""

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        budget: Budget,
        on_judged: Callable[[int, float | None], None],
    ) -> None:
        self.plan = plan
        self.judge = plan.judge
        self.journal = journal
        self.budget = budget
        self.on_judged = on_judged
        self.spent = Spent()
        self.failures_in_a_row = 0

    def ask(self) -> str | None:
        """Ask for all that is missing; says why if not all was asked."""
        waiting = self._waiting()
        under_way: dict[Future[Row | None], str] = {}
        stopped: str | None = None
        with ThreadPoolExecutor(self.judge.concurrency) as pool:
            try:
                while True:
                    while stopped is None and len(under_way) < self.judge.concurrency:
                        if (item := next(waiting, None)) is None:
                            break
                        under_way[pool.submit(self._try, item[1])] = item[0]
                    if not under_way:
                        return stopped
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        payload = future.result()
                        stopped = self._finish(under_way.pop(future), payload) or stopped
            finally:
                # Whatever ended this: replies under way are paid for, so they are kept.
                for future, key in under_way.items():
                    if future.exception() is None and (payload := future.result()) is not None:
                        self._record(key, payload)

    def _waiting(self) -> Iterator[tuple[str, Call]]:
        """What no process has judged yet, a question's calls together.

        The order of the questions is drawn by each process for itself, so that two on one journal rarely meet.
        """
        by_question: dict[str, list[tuple[str, Call]]] = {}
        num_pending = 0
        for key, call in self.plan.calls().items():
            if not self.journal.is_done(key):
                by_question.setdefault(call.question.id, []).append((key, call))
                num_pending += 1
        if len(self.plan.items) > num_pending:
            self.on_judged(len(self.plan.items) - num_pending, self.spent.usd)
        groups = list(by_question.values())
        random.Random(os.getpid()).shuffle(groups)
        for key, call in (pair for group in groups for pair in group):
            if self.journal.is_done(key):
                self.on_judged(1, self.spent.usd)
            else:
                yield key, call

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
                usd = 0.0  # nothing is paid for a call without a reply
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
            if error or self.plan.protocol.parse(text) is not None:
                break
            error = "the reply holds no verdict"
        return {"reply": text, "error": error, "spent": spent._asdict()}

    def _finish(self, key: str, payload: Row | None) -> str | None:
        """Record one outcome; says why if the run must end."""
        if payload is None:
            return self.budget.stopped
        self._record(key, payload)
        self.on_judged(1, self.spent.usd)
        self.failures_in_a_row = self.failures_in_a_row + 1 if payload["reply"] is None else 0
        if self.failures_in_a_row == self.judge.gives_up_after:
            return (
                f"{self.failures_in_a_row} calls in a row failed, the last with: {payload['error']}"
            )
        return None

    def _record(self, key: str, payload: Row) -> None:
        spent = Spent(**payload["spent"])
        self.spent = self.spent.plus(spent)
        before = self.journal.get(key)
        if before is not None and before.status == "failed":
            payload["spent"] = spent.plus(Spent(**before.payload["spent"]))._asdict()
        self.journal.record(Entry(key, "failed" if payload["error"] else "ok", payload))


def _judgment(plan: Plan, item: Planned, entry: Entry | None) -> Game | Grade:
    """What was said of an item, scored; without a score it says why."""
    protocol = plan.protocol
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
        "judge_identity": plan.identity,
        "reply": reply,
        "prompt": None if item.call is None else item.call.messages,
        "extra": {"error": error} if error else {},
    }
    if protocol.num_shown == 1:
        grade = Grade(system=item.systems[0], **shared)
        return protocol.finish_grade(grade, item.question)
    label = None if verdict is None else str(verdict)
    game = Game(a=item.systems[0], b=item.systems[1], order=item.order, verdict=label, **shared)
    return protocol.finish_game(game, item.question, item.answers)


def check_missing(judged: Judged, *, max_missing: float) -> None:
    """DataError if the run was cut off, or more than that share of the judgments has no usable score."""
    counts = judged.tally
    if judged.stopped is not None:
        raise DataError(f"judge: {judged.stopped}; run it again to go on")
    missing = counts.num_total - counts.num_scored
    if missing <= max_missing * counts.num_total:
        return
    # Asking again helps only where a reply may be another.
    remedy = {
        "replay": "a replay says only what was recorded: record those too, or ask another --judge",
        "endpoint": "run it again to try those again, or accept them with a higher --max-missing",
    }.get(
        judged.judgments[0].judge_identity["settings"]["kind"],
        "this judge says the same again: ask another --judge, or accept them with a higher --max-missing",
    )
    errors = [error for j in judged.judgments if (error := j.extra.get("error"))]
    first = f"; the first: {errors[0]}" if errors else ""
    raise DataError(
        f"judge: {missing} of {counts.num_total} judgments are missing, more than {max_missing:.1%} "
        f"({counts.num_failed} failed, {counts.num_unparsable} without a verdict, "
        f"{counts.num_out_of_range} off the scale{first}); {remedy}"
    )
