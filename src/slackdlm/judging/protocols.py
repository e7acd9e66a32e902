"""What does judging a benchmark ask for? Per protocol: the calls of a question, and what a reply to one means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from slackdlm.benchmarks import (
    alpaca_eval,
    arena_hard,
    creative_writing,
    mt_bench,
    wildbench,
)
from slackdlm.benchmarks.answers import read_questions
from slackdlm.errors import ConfigError
from slackdlm.judgments import Game, Grade, Messages
from slackdlm.records import Question

ProtocolName = Literal[
    "arena-hard",
    "pairs",
    "mt-bench",
    "mt-bench-pairs",
    "wildbench",
    "wildbench-pairs",
    "creative-writing",
    "alpaca-eval",
    "alpaca-eval-unweighted",
]
Turns = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class JudgingProtocol:
    """How one benchmark is judged, put together from its module's functions."""

    name: str
    """One of `protocol_names`, or a study's own."""
    num_shown: Literal[1, 2]
    """Answers in a call: 2 where two systems are compared, in both orders."""
    read_questions: Callable[[Path, Path | None], list[Question]]
    """From the question file and, for MT-Bench, the file of reference answers."""
    messages: Callable[[Question, Sequence[Turns], int], Messages]
    """Question, answers in the order shown and turn -> what the judge is sent."""
    parse: Callable[[str], str | float | None]
    """Reply -> verdict about the answers as shown, or grade; ``None`` if it says nothing that counts."""
    score: Callable[[Any, int], float]
    """Verdict and order -> points of system ``a``; a grade is its own score."""
    scale: tuple[float, float]
    """Lowest and highest score."""
    prompts_sha256: Callable[[], str]
    """Hash of the judge prompts."""
    all_turns: bool = False
    """Whether every turn of an answer is judged, or the first alone."""
    without_judge: Callable[[Sequence[str]], str | float | None] | None = None
    """What the protocol says without asking, such as of empty answers; ``None``: ask."""
    finish_grade: Callable[[Grade, Question, Turns | None], Grade] | None = None
    """Grade, question and answer, if any -> the grade as the benchmark's own file gives it, where that says more."""
    finish_game: Callable[[Game, Question, Sequence[Turns | None]], Game] | None = None
    """The same of a game and the answers of its two systems."""
    first_token: bool = False
    """Whether a reply is its first token with the probabilities of the likeliest ones."""

    def num_turns(self, question: Question) -> int:
        """Turns of a question that are judged."""
        return 1 + len(question.later_turns) if self.all_turns else 1


def judging_protocol(name: str, *, judge_prompt: Path | None = None) -> JudgingProtocol:
    """The protocol of that name; ``pairs`` compares answers to any question file with Arena-Hard v0.1's prompt.

    Args:
        name: One of `protocol_names`.
        judge_prompt: Creative-Writing-Bench's judge prompt, its two files of criteria beside it: they have no
            licence and come from the user's copy.

    Raises:
        ConfigError: If there is no such protocol, or the judge prompt is missing or not wanted.
        DataError: If the judge prompt cannot be used.
    """
    if name not in protocol_names():
        raise ConfigError(
            f"--benchmark: unknown {name!r}; use one of {', '.join(protocol_names())}"
        )
    if (name == "creative-writing") != (judge_prompt is not None):
        raise ConfigError(
            "--judge-prompt: only creative-writing takes one, the others bring theirs"
            if judge_prompt is not None
            else "creative-writing: its judge prompt has no licence to be shipped; give that of your copy "
            "with --judge-prompt FOLDER/creative_writing_judging_prompt.txt, its criteria files beside it"
        )
    if judge_prompt is not None:
        return _creative_writing(creative_writing.read_rubric(judge_prompt))
    known = (_ARENA, _PAIRS, _MT, _MT_PAIRS, _WB, _WB_PAIRS, _ALPACA, _ALPACA_UNWEIGHTED)
    return next(protocol for protocol in known if protocol.name == name)


def protocol_names() -> tuple[ProtocolName, ...]:
    """All names."""
    return get_args(ProtocolName)


def _grade(grade: float, order: int) -> float:
    return grade


def _as_arena(question: Question, answers: Sequence[Turns]) -> Messages:
    return arena_hard.judge_messages(question, answers[0][0], answers[1][0])


_ARENA = JudgingProtocol(
    name="arena-hard",
    num_shown=2,
    read_questions=lambda path, references: arena_hard.read_questions(path),
    messages=lambda question, answers, turn: _as_arena(question, answers),
    parse=arena_hard.parse_verdict,
    score=arena_hard.score_of,
    scale=(0, 1),
    prompts_sha256=arena_hard.prompts_sha256,
)
_PAIRS = replace(
    _ARENA,
    name="pairs",
    read_questions=lambda path, references: read_questions(path),
    messages=lambda question, answers, turn: _as_arena(
        replace(question, category="arena-hard-v0.1"), answers
    ),
)
_MT = JudgingProtocol(
    name="mt-bench",
    num_shown=1,
    read_questions=lambda path, references: mt_bench.read_questions(path, references=references),
    messages=lambda question, answers, turn: mt_bench.judge_messages(
        question, answers[0], turn=turn
    ),
    parse=mt_bench.parse_verdict,
    score=_grade,
    scale=(mt_bench.LOWEST, mt_bench.HIGHEST),
    all_turns=True,
    prompts_sha256=mt_bench.prompts_sha256,
)
_MT_PAIRS = replace(
    _MT,
    name="mt-bench-pairs",
    num_shown=2,
    messages=lambda question, answers, turn: mt_bench.pair_messages(
        question, answers[0], answers[1], turn=turn
    ),
    parse=mt_bench.parse_winner,
    score=mt_bench.winner_score,
    scale=(0, 1),
)
_WB = JudgingProtocol(
    name="wildbench",
    num_shown=1,
    read_questions=lambda path, references: wildbench.read_questions(path),
    messages=lambda question, answers, turn: wildbench.judge_messages(question, answers[0][0]),
    parse=wildbench.parse_verdict,
    score=_grade,
    scale=(1, 10),
    prompts_sha256=wildbench.prompts_sha256,
    without_judge=lambda answers: None if answers[0].strip() else 1.0,
)
_WB_PAIRS = replace(
    _WB,
    name="wildbench-pairs",
    num_shown=2,
    messages=lambda question, answers, turn: wildbench.pair_messages(
        question, answers[0][0], answers[1][0]
    ),
    parse=wildbench.parse_choice,
    score=wildbench.choice_score,
    scale=(0, 1),
    without_judge=lambda answers: wildbench.verdict_without_judge(answers[0], answers[1]),
)
_ALPACA = replace(
    _ARENA,
    name="alpaca-eval",
    read_questions=lambda path, references: alpaca_eval.read_questions(path),
    messages=lambda question, answers, turn: alpaca_eval.judge_messages(
        question, answers[0][0], answers[1][0]
    ),
    parse=alpaca_eval.parse_preference,
    score=alpaca_eval.preference_score,
    prompts_sha256=alpaca_eval.prompts_sha256,
    finish_game=lambda game, question, answers: alpaca_eval.judged_game(
        game, question, [turns and turns[0] for turns in answers]
    ),
    first_token=True,
)
_ALPACA_UNWEIGHTED = replace(
    _ALPACA,
    name="alpaca-eval-unweighted",
    parse=alpaca_eval.parse_choice,
    first_token=False,
)


def _creative_writing(rubric: creative_writing.Rubric) -> JudgingProtocol:
    criteria = rubric.criteria
    return JudgingProtocol(
        name="creative-writing",
        num_shown=1,
        read_questions=lambda path, references: creative_writing.read_questions(path),
        messages=lambda question, answers, turn: creative_writing.judge_messages(
            question, answers[0][0], rubric
        ),
        parse=lambda reply: creative_writing.parse_grade(reply, criteria),
        score=_grade,
        scale=(creative_writing.LOWEST, creative_writing.HIGHEST),
        prompts_sha256=rubric.sha256,
        finish_grade=lambda grade, question, turns: creative_writing.judged_grade(
            grade, question, criteria
        ),
    )
