"""Win rates: the mean of points per question."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from slackdlm.benchmarks.arena_hard import weight_of
from slackdlm.errors import DataError
from slackdlm.judgments import Game
from slackdlm.statistics.bootstrap import (
    Estimate,
    mean_interval,
    ratio_interval,
    scored_values,
)
from slackdlm.statistics.permutation import sign_flip_test
from slackdlm.statistics.questions import QuestionScores, game_scores


@dataclass(frozen=True)
class WinRate(Estimate):
    """A win rate in ``[0, 1]``, ties counted half, with its interval and its test against 0.5."""

    p_value: float | None
    """Two-sided sign-flip p of "no difference"; None if no question was scored."""


@dataclass(frozen=True)
class NullBounds:
    """What a mean could be if the missing judgments were there."""

    low: float | None
    """If all of them had been the worst; None without a question."""
    high: float | None
    """If all of them had been the best."""
    num_missing: int
    """Questions not scored."""


def win_points(a: Float[np.ndarray, " Q"], b: Float[np.ndarray, " Q"]) -> Float[np.ndarray, " Q"]:
    """``a``'s points against ``b``: 1 win, 0.5 tie, 0 loss, NaN where either is missing."""
    points = np.where(a > b, 1.0, np.where(a < b, 0.0, 0.5))
    return np.where(np.isnan(a) | np.isnan(b), np.nan, points)


def win_rate(
    points: Float[np.ndarray, " Q"],
    *,
    rng: np.random.Generator,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
) -> WinRate:
    """The mean of points in ``[0, 1]``, its BCa interval and its sign-flip test against 0.5.

    Edges and population as in `mean_interval`.

    Raises:
        DataError: If a point lies outside ``[0, 1]``.
    """
    scored = scored_values(points, where="win_rate")
    if scored.size and (scored.min() < 0 or scored.max() > 1):
        raise DataError(
            f"win_rate: points must lie in [0, 1], got [{scored.min()}, {scored.max()}]; "
            "make them with win_points"
        )
    rate = mean_interval(
        points, rng=rng, num_resamples=num_resamples, confidence=confidence, bounds=(0.0, 1.0)
    )
    p_value = sign_flip_test(points - 0.5, rng=rng, num_resamples=num_resamples)
    return WinRate(rate.value, rate.low, rate.high, rate.num_scored, rate.num_total, p_value)


def null_bounds(scores: QuestionScores) -> NullBounds:
    """The mean over all questions under the worst and the best case for every missing judgment.

    The reported mean leaves questions with a missing judgment out; if what is missing is not missing
    at random, it may lie anywhere between these.
    """
    if not scores.ids:
        return NullBounds(None, None, 0)
    low, high = float(scores.lowest.mean()), float(scores.highest.mean())
    return NullBounds(low, high, int(np.isnan(scores.scores).sum()))


def weighted_win_rate(
    games: Sequence[Game],
    *,
    rng: np.random.Generator,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
) -> Estimate:
    """Arena-Hard's mean over rows, a strong verdict making three of them, with a question-level interval.

    The value is that of v2.0's script before its bootstrap, whose mean of 100 unseeded resamples is what
    that prints; the interval resamples questions, where the script resamples rows as if they were independent.
    """
    scored = game_scores(games)
    whole = scored.whole
    sums = dict.fromkeys(scored.ids, 0.0)
    rows = dict.fromkeys(scored.ids, 0.0)
    for game in games:
        if game.question_id in whole and game.score is not None:
            sums[game.question_id] += weight_of(game) * game.score
            rows[game.question_id] += weight_of(game)
    return ratio_interval(
        np.array(list(sums.values())),
        np.array(list(rows.values())),
        rng=rng,
        num_resamples=num_resamples,
        confidence=confidence,
        bounds=(0.0, 1.0),
    )
