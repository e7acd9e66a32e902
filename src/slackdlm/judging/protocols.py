"""What does judging a benchmark ask for? Per protocol: the calls of a question, and what a reply to one means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from slackdlm.benchmarks import alpaca_eval, arena_hard, creative_writing, mt_bench, wildbench
from slackdlm.benchmarks.answers import BenchmarkName, read_benchmark_questions
from slackdlm.errors import ConfigError
from slackdlm.judgments import Game, Grade, Messages
from slackdlm.records import Question

Turns = tuple[str, ...]
"""The turns of one answer."""


def _own_score(grade: float, order: int) -> float:
    return grade


@dataclass(frozen=True, kw_only=True)
class JudgingProtocol:
    """How one benchmark is judged, put together from its module's functions."""

    name: str
    """One of `protocol_names`, or a study's own."""
    benchmark: BenchmarkName | None = None
    """Whose question files are read; None: any."""
    num_shown: Literal[1, 2]
    """Answers in a call: 2 where two systems are compared, in both orders."""
    prompt: Callable[..., Messages]
    """From a question and the text of each answer in the order shown; with `all_turns`, its turns and ``turn=``."""
    parse: Callable[[str], Any]
    """Reply -> verdict about the answers as shown, or grade; None if it says nothing that counts."""
    score: Callable[[Any, int], float] = _own_score
    """Verdict and order -> points of system ``a``; a grade is its own score."""
    scale: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest score."""
    prompts_sha256: Callable[[], str]
    """Hash of the judge prompts."""
    all_turns: bool = False
    """Whether every turn of an answer is judged, or the first alone."""
    first_token: bool = False
    """Whether a reply is its first token with the probabilities of the likeliest ones."""
    without_judge: Callable[..., Any] = lambda *texts: None
    """Texts shown -> what the protocol says without asking, such as of empty answers; None: ask."""
    finish_grade: Callable[[Grade, Question], Grade] = lambda grade, question: grade
    """The grade as the benchmark's own file gives it, where that says more."""
    finish_game: Callable[[Game, Question, Sequence[Turns | None]], Game] = (
        lambda game, question, answers: game
    )
    """The same of a game and the answers of its two systems."""

    def messages(self, question: Question, answers: Sequence[Turns], turn: int) -> Messages:
        """What the judge is sent about the answers in the order shown."""
        if self.all_turns:
            return self.prompt(question, *answers, turn=turn)
        return self.prompt(question, *(turns[0] for turns in answers))

    def read_questions(self, path: Path, references: Path | None) -> list[Question]:
        """From the question file and, for MT-Bench, the file of reference answers."""
        return read_benchmark_questions(path, self.benchmark, references=references)

    def num_turns(self, question: Question) -> int:
        """Turns of a question that are judged."""
        return 1 + len(question.later_turns) if self.all_turns else 1


_ARENA_HARD = JudgingProtocol(
    name="arena-hard",
    benchmark="arena-hard",
    num_shown=2,
    prompt=arena_hard.judge_messages,
    parse=arena_hard.parse_verdict,
    score=arena_hard.score_of,
    prompts_sha256=arena_hard.prompts_sha256,
)
_PAIRS = replace(_ARENA_HARD, name="pairs", benchmark=None, prompt=arena_hard.plain_messages)
_MT_BENCH = JudgingProtocol(
    name="mt-bench",
    benchmark="mt-bench",
    num_shown=1,
    prompt=mt_bench.judge_messages,
    parse=mt_bench.parse_verdict,
    scale=(mt_bench.LOWEST, mt_bench.HIGHEST),
    prompts_sha256=mt_bench.prompts_sha256,
    all_turns=True,
)
_MT_BENCH_PAIRS = JudgingProtocol(
    name="mt-bench-pairs",
    benchmark="mt-bench",
    num_shown=2,
    prompt=mt_bench.pair_messages,
    parse=mt_bench.parse_winner,
    score=mt_bench.winner_score,
    prompts_sha256=mt_bench.prompts_sha256,
    all_turns=True,
)
_WILDBENCH = JudgingProtocol(
    name="wildbench",
    benchmark="wildbench",
    num_shown=1,
    prompt=wildbench.judge_messages,
    parse=wildbench.parse_verdict,
    scale=(wildbench.LOWEST, wildbench.HIGHEST),
    prompts_sha256=wildbench.prompts_sha256,
    without_judge=wildbench.grade_without_judge,
)
_WILDBENCH_PAIRS = JudgingProtocol(
    name="wildbench-pairs",
    benchmark="wildbench",
    num_shown=2,
    prompt=wildbench.pair_messages,
    parse=wildbench.parse_choice,
    score=wildbench.choice_score,
    prompts_sha256=wildbench.prompts_sha256,
    without_judge=wildbench.verdict_without_judge,
)
_ALPACA_EVAL = JudgingProtocol(
    name="alpaca-eval",
    benchmark="alpaca-eval",
    num_shown=2,
    prompt=alpaca_eval.judge_messages,
    parse=alpaca_eval.parse_preference,
    score=alpaca_eval.preference_score,
    prompts_sha256=alpaca_eval.prompts_sha256,
    first_token=True,
    finish_game=alpaca_eval.judged_game,
)
_UNWEIGHTED = replace(
    _ALPACA_EVAL,
    name="alpaca-eval-unweighted",
    parse=alpaca_eval.parse_choice,
    first_token=False,
)
_PROTOCOLS = (
    *(_ARENA_HARD, _PAIRS, _MT_BENCH, _MT_BENCH_PAIRS, _WILDBENCH, _WILDBENCH_PAIRS),
    *(_ALPACA_EVAL, _UNWEIGHTED),
)


def _creative_writing(rubric: creative_writing.Rubric) -> JudgingProtocol:
    return JudgingProtocol(
        name="creative-writing",
        benchmark="creative-writing",
        num_shown=1,
        prompt=partial(creative_writing.judge_messages, rubric=rubric),
        parse=partial(creative_writing.parse_grade, criteria=rubric.criteria),
        scale=(creative_writing.LOWEST, creative_writing.HIGHEST),
        prompts_sha256=rubric.sha256,
        finish_grade=partial(creative_writing.judged_grade, criteria=rubric.criteria),
    )


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
        names = ", ".join(protocol_names())
        raise ConfigError(f"--benchmark: unknown {name!r}; use one of {names}")
    if name != "creative-writing":
        if judge_prompt is not None:
            raise ConfigError(
                "--judge-prompt: only creative-writing takes one, the others bring theirs"
            )
        return next(protocol for protocol in _PROTOCOLS if protocol.name == name)
    if judge_prompt is None:
        raise ConfigError(
            "creative-writing: its judge prompt has no licence to be shipped; give that of your copy "
            "with --judge-prompt FOLDER/creative_writing_judging_prompt.txt, its criteria files beside it"
        )
    return _creative_writing(creative_writing.read_rubric(judge_prompt))


def protocol_names() -> tuple[str, ...]:
    """All names."""
    return (*(protocol.name for protocol in _PROTOCOLS), "creative-writing")
