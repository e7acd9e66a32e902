"""Does a score move with the dose? One slope per question."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from slackdlm.errors import DataError
from slackdlm.statistics.bootstrap import Estimate, mean_interval
from slackdlm.statistics.permutation import sign_flip_test


@dataclass(frozen=True)
class Trend(Estimate):
    """The mean slope of a per-question score against the dose, in score per unit of dose."""

    p_value: float | None
    """Two-sided sign-flip p of "no slope"; None if no question has two doses scored."""


def dose_trend(
    scores: Float[np.ndarray, "D Q"],
    doses: Float[np.ndarray, " D"],
    *,
    rng: np.random.Generator,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = None,
) -> Trend:
    """The mean over questions of the least-squares slope of score against dose, and its test.

    ``doses`` holds the dose of each row, such as the shift rate; the slope is per unit of it. A
    question counts once two of its doses are scored. Edges and population as in `mean_interval`;
    ``bounds``, the range a score can have, bound the steepest slope.

    Raises:
        DataError: If two doses are equal or one is not finite.
    """
    if not np.isfinite(doses).all() or np.unique(doses).size != doses.size:
        raise DataError(f"dose_trend: expected distinct finite doses, got {doses.tolist()}")
    scored = ~np.isnan(scores)
    counts = scored.sum(axis=0)
    mean_dose = (scored * doses[:, None]).sum(axis=0) / np.maximum(counts, 1)
    offsets = np.where(scored, doses[:, None] - mean_dose, 0.0)
    spread = (offsets**2).sum(axis=0)
    known = np.where(scored, scores, 0.0)
    covariance = (offsets * known).sum(axis=0)
    # A flat question leaves rounding behind, of one sign in all questions: the test would see a trend.
    rounding = 1e-12 * np.sqrt(spread) * np.abs(known).max(axis=0, initial=0.0)
    covariance[np.abs(covariance) <= rounding] = 0.0
    slopes = np.full(counts.shape, np.nan)
    np.divide(covariance, spread, out=slopes, where=counts >= 2)
    slope = mean_interval(
        slopes,
        rng=rng,
        num_resamples=num_resamples,
        confidence=confidence,
        bounds=None if bounds is None else _steepest(offsets, spread, span=bounds[1] - bounds[0]),
    )
    p_value = sign_flip_test(slopes, rng=rng, num_resamples=num_resamples)
    return Trend(slope.value, slope.low, slope.high, slope.num_scored, slope.num_total, p_value)


def _steepest(
    offsets: Float[np.ndarray, "D Q"], spread: Float[np.ndarray, " Q"], *, span: float
) -> tuple[float, float]:
    """Of any question: the best score above its mean dose and the worst below, and the other way round."""
    rises = np.maximum(offsets, 0.0).sum(axis=0)
    slope = span * float(
        np.divide(rises, spread, out=np.zeros_like(spread), where=spread > 0).max(initial=0.0)
    )
    return -slope, slope
