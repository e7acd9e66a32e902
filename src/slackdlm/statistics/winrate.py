"""Win rates: the mean of points per question."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from slackdlm.errors import DataError
from slackdlm.statistics.bootstrap import Estimate, mean_interval, scored_values
from slackdlm.statistics.permutation import sign_flip_test


@dataclass(frozen=True)
class WinRate(Estimate):
    """A win rate in ``[0, 1]``, ties counted half, with its interval and its test against 0.5."""

    p_value: float | None
    """Two-sided sign-flip p of "no difference"; None if no question was scored."""


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
