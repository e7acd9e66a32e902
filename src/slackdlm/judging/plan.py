"""Which judgments are to be made, of which calls? Nothing is asked here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One judgment to be made."""

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


@dataclass(frozen=True)
class Plan:
    """All judgments of some systems, and who makes them."""

    protocol: JudgingProtocol
    judge: Judge
    identity: Row
    """Everything that these judgments share with those they may be compared with."""
    items: list[Planned]

    def calls(self) -> dict[str, Call]:
        """What is to be asked, by key: the same answer of two systems is judged once."""
        return {item.key: item.call for item in self.items if item.call is not None}


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
    baseline: Sequence[Answer] | None = None,
) -> Plan:
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
    orders: tuple[Literal[0, 1], ...] = (0, 1) if base else (0,)
    identity = judge_identity(protocol, judge, baseline=next(iter(base), None))
    items = [
        _plan(protocol, identity, question, {system: answered} | base, order=order, turn=turn)
        for system, answered in by_system.items()
        for question in questions
        for turn in range(1, 1 + protocol.num_turns(question))
        for order in orders
    ]
    return Plan(protocol, judge, identity, items)


def without_partner(questions: Sequence[Question], answers: Sequence[Answer]) -> list[str]:
    """What belongs to nothing on the other side, a line for each system and side."""
    ids = {question.id for question in questions}
    sources = {answer.system: answer.source or "the answers" for answer in answers}
    lines: list[str] = []
    for system, where in sources.items():
        answered = {answer.question_id for answer in answers if answer.system == system}
        for alone, what in (
            (answered - ids, "answers to questions that are not asked"),
            (ids - answered, "questions without an answer"),
        ):
            if alone:
                first = ", ".join(map(ascii, sorted(alone)[:3])) + (", …" if len(alone) > 3 else "")
                lines.append(f"{where}: {what}: {len(alone)} of {system!a} ({first})")
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


def dry_run(plan: Plan, *, journal: Path | None = None) -> DryRun:
    """Count what a run would ask, and ask nothing; without a journal nothing is done yet."""
    done = Journal(journal if journal is not None and journal.exists() else None)
    calls = plan.calls()
    missing = [call for key, call in calls.items() if not done.is_done(key)]
    costs = [plan.judge.worst_usd(call) for call in missing]
    return DryRun(
        num_judgments=len(plan.items),
        num_done=len(calls) - len(missing),
        num_without_call=sum(item.call is None for item in plan.items),
        num_calls=len(missing),
        prompt_tokens=sum(estimate_tokens(call.messages) for call in missing),
        worst_usd=None if None in costs else sum(cost or 0.0 for cost in costs),
    )


def _by_system(
    answers: Sequence[Answer], questions: Sequence[Question], *, what: str
) -> dict[str, dict[str, Answer]]:
    """Answers to the questions asked, by system and question."""
    by_id = {question.id: question for question in questions}
    systems: dict[str, dict[str, Answer]] = {}
    for answer in answers:
        if answer.question_id not in by_id:
            continue
        check_asked(answer, by_id[answer.question_id], what=what)
        answered = systems.setdefault(answer.system, {})
        if answer.question_id in answered:
            raise DataError(
                f"{answer.source or what}: {answer.system!a} answers question {answer.question_id!a} twice; keep one"
            )
        answered[answer.question_id] = answer
    if not systems:
        raise DataError(
            f"{what}: none of them is to one of the {len(by_id)} questions; use the same files"
        )
    return systems


def _baseline(
    protocol: JudgingProtocol,
    by_system: Mapping[str, object],
    baseline: Sequence[Answer] | None,
    questions: Sequence[Question],
) -> dict[str, dict[str, Answer]]:
    """The one system that all others are compared to; empty where answers are graded."""
    if protocol.num_shown == 1:
        if baseline is not None:
            raise DataError(f"{protocol.name}: answers are graded one by one; give no baseline")
        return {}
    if baseline is None:
        raise DataError(f"{protocol.name}: answers are compared; give the baseline's answers")
    systems = _by_system(baseline, questions, what="the baseline")
    if len(systems) != 1:
        raise DataError(f"the baseline: expected one system, got {', '.join(map(ascii, systems))}")
    (name,) = systems
    if name in by_system:
        raise DataError(
            f"the baseline and the system judged are both called {name!a}; if they are two systems, answer one again "
            "with another --name (nothing is decoded again), or rename it in its file"
        )
    return systems


def _plan(
    protocol: JudgingProtocol,
    identity: Row,
    question: Question,
    systems: Mapping[str, Mapping[str, Answer]],
    *,
    order: Literal[0, 1],
    turn: int,
) -> Planned:
    """One judgment of the systems' answers to a question."""
    answers = [answered.get(question.id) for answered in systems.values()]
    turns = tuple(None if answer is None else answer.turns for answer in answers)
    planned = Planned(
        question=question, systems=tuple(systems), order=order, turn=turn, answers=turns
    )
    for system, texts in zip(systems, turns, strict=True):
        if texts is None or len(texts) < turn:
            what = f"turn {turn} has" if turn > 1 else "there is"
            return replace(planned, missing=f"{what} no answer of {system!a}")
    in_order = [texts for texts in turns if texts is not None][:: -1 if order == 1 else 1]
    decided = protocol.without_judge(*(texts[turn - 1] for texts in in_order))
    if decided is not None:
        return replace(planned, decided=decided)
    messages = protocol.messages(question, in_order, turn)
    item = {
        "question": question.id,
        "messages": content_hash([dict(message) for message in messages]),
        "order": order,
        "turn": turn,
    }
    call = Call(messages, question, tuple(in_order), order, protocol.first_token)
    return replace(planned, call=call, key=item_key(identity, item))
