"""A benchmark's own figures for a system's judgments, to the digit, and ours of the same kind beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from slackdlm.benchmarks import (
    alpaca_eval,
    arena_hard,
    creative_writing,
    mt_bench,
    wildbench_scores,
)
from slackdlm.judgments import Game, Grade, mean_score
from slackdlm.statistics import Estimate, mean_interval, ratio_interval
from slackdlm.study.comparison import Settings
from slackdlm.study.length_control import Gamed, length_controlled_win_rate
from slackdlm.study.questions import game_scores, in_one_order

SIZES: Mapping[str, tuple[int, int]] = {
    "mt-bench": (80, 2),
    "wildbench": (1024, 1),
    "alpaca-eval": (805, 1),
    "arena-hard-v0.1": (500, 1),
    "arena-hard: arena-hard-v0.1": (500, 1),
    "arena-hard: hard_prompt": (500, 1),
    "arena-hard: creative_writing": (250, 1),
    "creative-writing": (32, 3),
}
"""Benchmark (and category) -> its questions, and judgments of each: turns or iterations."""


@dataclass(frozen=True)
class Extras:
    """What some benchmarks' own figures need beside the judgments."""

    gamed: Gamed | None = None
    """For AlpacaEval's length-controlled win rate."""
    task_groups: Mapping[str, Sequence[str]] | None = None
    """For WildBench's task-macro score (`wildbench.task_groups`)."""


def drawn(settings: Settings) -> dict[str, Any]:
    """How every bootstrap is drawn: anew from the seed."""
    told = {"num_resamples": settings.num_resamples, "confidence": settings.confidence}
    return {"rng": np.random.default_rng(settings.seed), **told}


class Figures(NamedTuple):
    """Figures by name, as shown; None where the benchmark has none for these judgments."""

    published: dict[str, float | None]
    """What the benchmark's own tool computes from the same judgments, to the digit."""
    ours: dict[str, Estimate]
    """What it does not, or not so."""


def family_of(benchmark: str) -> str:
    """The benchmark a protocol judges, whether it grades or compares."""
    return benchmark.removesuffix("-pairs")


def game_figures(
    benchmark: str, games: Sequence[Game], *, extras: Extras, settings: Settings
) -> Figures:
    """Of one pair of systems, in per cent or points."""
    family = family_of(benchmark)
    if family == "alpaca-eval":
        # Both orders averaged are no published protocol.
        rate = {"win rate": alpaca_eval.published_win_rate(games)} if in_one_order(games) else {}
        if extras.gamed is None:
            return Figures(rate, {})
        controlled = length_controlled_win_rate(
            games, gamed=extras.gamed, confidence=settings.confidence
        )
        # An optimum where AlpacaEval's solver stops nearby: up to 0.05 points apart.
        return Figures(rate, {"length-controlled win rate": _per_cent(controlled.estimate)})
    if family == "mt-bench":
        return Figures(
            {"FastChat's adjusted win rate": _times(100, mt_bench.published_win_rate(games))}, {}
        )
    if (
        family == "wildbench"
        and in_one_order(games)
        and all(map(wildbench_scores.holds_outputs, games))
    ):
        rewards = np.array(wildbench_scores.rewards(games))
        ours = mean_interval(rewards, bounds=(-100.0, 100.0), **drawn(settings))
        return Figures(_rewards(games, extras.task_groups), {"WB-Reward": ours})
    if family.startswith("arena-hard"):
        weighted = weighted_win_rate(games, **drawn(settings))
        ours = {"strong verdicts three times": _per_cent(weighted)}
        # The script for v2.0 prints the mean of 100 unseeded resamples, another number each time.
        is_old = family == arena_hard.V01
        score = {"score": _times(100, arena_hard.published_v01(games))} if is_old else {}
        return Figures(score, ours)
    return Figures({}, {})


def weighted_win_rate(games: Sequence[Game], **draws: Any) -> Estimate:
    """Arena-Hard's mean over rows, a strong verdict making three of them, with a question-level interval.

    The value is that of v2.0's script before its bootstrap, whose mean of 100 unseeded resamples is what
    that prints; the interval resamples questions, where the script resamples rows as if they were independent.
    ``draws`` are the arguments of `slackdlm.statistics.ratio_interval`.
    """
    scores = game_scores(games)
    sums, rows = dict.fromkeys(scores.ids, 0.0), dict.fromkeys(scores.ids, 0.0)
    for game in games:
        if game.question_id in scores.whole and game.score is not None:
            sums[game.question_id] += arena_hard.weight_of(game) * game.score
            rows[game.question_id] += arena_hard.weight_of(game)
    tops, bottoms = (np.array(list(parts.values())) for parts in (sums, rows))
    return ratio_interval(tops, bottoms, bounds=(0.0, 1.0), **draws)


def grade_figures(benchmark: str, grades: Sequence[Grade], *, extras: Extras) -> Figures:
    """Of one system, on the benchmark's own scale."""
    mean = mean_score(grades)
    if benchmark == "mt-bench":
        turns = {
            name: mean_score([grade for grade in grades if grade.turn == turn])
            for name, turn in (("first turn", 1), ("second turn", 2))
        }
        return Figures({"average": mean, **turns}, {})
    if benchmark == "wildbench":
        found = {"WB-Score": None if mean is None else (mean - 5) * 20}
        if extras.task_groups is None:
            return Figures(found, {})
        macro = wildbench_scores.task_macro(
            wildbench_scores.task_scores(grades, extras.task_groups)
        )
        if all(isinstance(grade.extra.get("model_output"), str | list) for grade in grades):
            return Figures(found | {"task macro": _times(10, macro)}, {})
        # Without the outputs nobody knows which the leaderboard leaves out.
    if benchmark == "creative-writing":
        score = creative_writing.published_score(grades)
        return Figures({} if score is None else {"eqbench_creative_score": score}, {})
    return Figures({}, {})


def _rewards(
    games: Sequence[Game], task_groups: Mapping[str, Sequence[str]] | None
) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, margin in (
        ("", None),
        (f", K={wildbench_scores.REWARD_MARGIN}", wildbench_scores.REWARD_MARGIN),
    ):
        found[f"WB-Reward{name}"] = wildbench_scores.published_reward(games, length_margin=margin)
        if task_groups is not None:
            rewards = wildbench_scores.task_rewards(games, task_groups, length_margin=margin)
            found[f"task macro{name}"] = wildbench_scores.task_macro(rewards)
    found["pairs left out of the sum"] = wildbench_scores.num_left_out(games)
    return found


def _per_cent(estimate: Estimate) -> Estimate:
    return estimate.mapped(lambda share: 100 * share)


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value
