"""Which judgments are to be made, of which calls? Nothing is asked here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from slackdlm.errors import DataError
from slackdlm.journal import Journal, content_hash, item_key
from slackdlm.jsonl import Row
from slackdlm.judging.judges import Call, Judge, estimate_tokens
from slackdlm.judging.protocols import JudgingProtocol
from slackdlm.records import Answer, Question, check_asked

PROTOCOL_VERSION = 2
"""Of how calls are made and replies read here; part of every judgment's identity."""


class Planned(NamedTuple):
    """One judgment to be made."""

    identity: Row
    """Everything that it shares with the judgments it may be compared with."""
    question: Question
    systems: tuple[str, ...]
    """Whose answers: one system to grade, or ``a`` and ``b``."""
    order: Literal[0, 1]
    turn: int
    answers: tuple[tuple[str, ...] | None, ...]
    """The turns of each system's answer, in the order of ``systems``."""
    call: Call | None = None
    """``None`` if there is nothing to ask."""
    key: str = ""
    """Of the journal; empty without a call."""
    missing: str = ""
    """Whose answer there is not, if so."""
    decided: str | float | None = None
    """What the protocol says by itself, such as of empty answers."""


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
            other questions than those asked.
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


def without_partner(questions: Sequence[Question], answers: Sequence[Answer]) -> list[str]:
    """What belongs to nothing on the other side, a line for each system and side."""
    lines: list[str] = []
    systems = {answer.system: answer.source or "the answers" for answer in answers}
    for system, where in systems.items():
        answered = {answer.question_id for answer in answers if answer.system == system}
        asked = {question.id for question in questions}
        for ids, what in (
            (
                [one for one in answered if one not in asked],
                "answers to questions that are not asked",
            ),
            (
                [one.id for one in questions if one.id not in answered],
                "questions without an answer",
            ),
        ):
            if ids:
                first = ", ".join(map(ascii, sorted(ids)[:3])) + (", …" if len(ids) > 3 else "")
                lines.append(f"{where}: {what}: {len(ids)} of {system!a} ({first})")
    return lines


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
        opened = Journal(journal)
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
    asked = {question.id: question for question in questions}
    found: dict[str, dict[str, Answer]] = {}
    for answer in answers:
        if answer.question_id in asked:
            check_asked(answer, asked[answer.question_id], what=what)
            answered = found.setdefault(answer.system, {})
            if answer.question_id in answered:
                raise DataError(
                    f"{answer.source or what}: {answer.system!a} answers question {answer.question_id!a} twice; "
                    "keep one"
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
    nothing = Planned(identity, question, systems, order, turn, told)
    turns: list[tuple[str, ...]] = []
    for system, answer in zip(systems, shown, strict=True):
        if answer is None or len(answer.turns) < turn:
            what = f"turn {turn} has" if turn > 1 else "there is"
            return nothing._replace(missing=f"{what} no answer of {system!a}")
        turns.append(answer.turns)
    if order == 1:
        turns.reverse()
    if protocol.without_judge is not None:
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
