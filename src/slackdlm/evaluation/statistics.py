"""How sure are we? Intervals and tests whose unit of analysis is the question.

Axis letters: ``Q`` questions, ``R`` repeats (decoding seeds), ``N`` training runs, ``D`` doses. In
arrays NaN means missing (never scored); in results None does, and every result says how many
questions were scored out of how many. The order of the questions changes nothing, seed included.

Arguments with one meaning throughout: ``rng`` source of randomness; ``num_resamples`` bootstrap
resamples of the questions, or sign patterns; ``confidence`` the coverage aimed at, in ``(0, 1)``.
An infinite score raises DataError, ``num_resamples`` or ``confidence`` out of range ConfigError.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from slackdlm.errors import ConfigError, DataError

CHUNK = 2_000_000
"""Most array cells a resampling loop holds at once."""


@dataclass(frozen=True)
class Estimate:
    """A mean over questions with its interval."""

    value: float | None
    """The mean over scored questions; None if none was scored."""
    low: float | None
    """Lower end of the interval; None below two scored questions."""
    high: float | None
    """Upper end of the interval; None below two scored questions."""
    num_scored: int
    """Questions that entered the mean."""
    num_total: int
    """Questions asked."""


@dataclass(frozen=True)
class WinRate(Estimate):
    """A win rate in ``[0, 1]``, ties counted half, with its interval and its test against 0.5."""

    p_value: float | None
    """Two-sided sign-flip p of "no difference"; None if no question was scored."""


@dataclass(frozen=True)
class Trend(Estimate):
    """The mean slope of a per-question score against the dose, in score per unit of dose."""

    p_value: float | None
    """Two-sided sign-flip p of "no slope"; None if no question has two doses scored."""


@dataclass(frozen=True)
class TrainingRuns:
    """A mean over several training runs, with one interval per population it may speak about."""

    per_run: tuple[float | None, ...]
    """The mean over questions of each training run."""
    these_runs: Estimate
    """Interval for new questions put to exactly these trained models."""
    new_runs: Estimate
    """Interval for new questions put to models trained anew by the same recipe."""


def mean_interval(
    scores: Float[np.ndarray, " Q"],
    *,
    rng: np.random.Generator,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
) -> Estimate:
    """The mean over questions with its BCa bootstrap interval (bias-corrected and accelerated).

    The interval speaks about new questions from the population these were drawn from, put to the
    same models. Nothing scored: all None. One question: a value without an interval. Equal scores:
    an interval of zero width, for resampling cannot show what was never seen; read it with
    ``num_scored``.

    References:
        Efron, 1987. Below about 20 questions BCa covers less than it says.
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence: expected a share in (0, 1), such as 0.95, got {confidence}")
    _check(num_resamples, at_least=100)
    scored = np.sort(_scored(scores, where="mean_interval"))
    num_scored, num_total = scored.size, scores.size
    if num_scored == 0:
        return Estimate(None, None, None, 0, num_total)
    centre = float(scored.mean())
    if num_scored == 1:
        return Estimate(centre, None, None, 1, num_total)
    scale = float(np.abs(scored - centre).max())
    if scale <= 1e-12 * max(abs(centre), 1e-300):
        return Estimate(centre, centre, centre, num_scored, num_total)
    # BCa moves with shift and scale; unit scale keeps its cubes from under- and overflow.
    interval = stats.bootstrap(
        ((scored - centre) / scale,),
        np.mean,
        n_resamples=num_resamples,
        confidence_level=confidence,
        batch=max(1, CHUNK // num_scored),
        method="BCa",
        rng=rng,
    ).confidence_interval
    low, high = (centre + scale * float(end) for end in interval)
    return Estimate(centre, low, high, num_scored, num_total)


def paired_difference(
    a: Float[np.ndarray, " Q"],
    b: Float[np.ndarray, " Q"],
    *,
    rng: np.random.Generator,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
) -> Estimate:
    """The mean of ``a - b`` over the questions where both are scored, with its BCa interval.

    Edges and population as in `mean_interval`.
    """
    return mean_interval(a - b, rng=rng, num_resamples=num_resamples, confidence=confidence)


def sign_flip_test(
    differences: Float[np.ndarray, " Q"], *, rng: np.random.Generator, num_resamples: int = 10_000
) -> float | None:
    """The two-sided permutation p of "the differences are symmetric about zero".

    Each question's difference keeps its size and may have had either sign. Exact where the sign
    patterns number at most ``num_resamples``, else ``(b + 1) / (m + 1)`` over that many random
    ones. Zeros are kept: either sign leaves them zero, so they change neither the sum nor the p and
    need no enumeration.

    Plain numpy: `scipy.stats.permutation_test` gives the same p but moves whole samples about, ten
    to twenty times slower, and a study runs hundreds of these.

    Returns:
        p in ``(0, 1]``; 1 if all differences are zero; None if none was scored.
    """
    _check(num_resamples, at_least=1)
    scored = _scored(differences, where="sign_flip_test")
    if scored.size == 0:
        return None
    sizes = np.sort(np.abs(scored[scored != 0]))
    if sizes.size == 0:
        return 1.0
    # Sums that differ by rounding alone are ties, and ties count.
    threshold = abs(float(np.sort(scored).sum())) - 1e-9 * float(sizes.sum())
    exact = sizes.size < 63 and 2**sizes.size <= num_resamples
    num_patterns = 2**sizes.size if exact else num_resamples
    num_extreme = 0
    for start in range(0, num_patterns, max(1, CHUNK // sizes.size)):
        stop = min(num_patterns, start + max(1, CHUNK // sizes.size))
        if exact:
            flips = (np.arange(start, stop)[:, None] >> np.arange(sizes.size)) & 1
        else:
            flips = rng.integers(0, 2, size=(stop - start, sizes.size), dtype=np.int8)
        sums = (2.0 * flips - 1.0) @ sizes
        num_extreme += int((np.abs(sums) >= threshold).sum())
    return num_extreme / num_patterns if exact else (num_extreme + 1) / (num_patterns + 1)


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
    scored = _scored(points, where="win_rate")
    if scored.size and (scored.min() < 0 or scored.max() > 1):
        raise DataError(
            f"win_rate: points must lie in [0, 1], got [{scored.min()}, {scored.max()}]; "
            "make them with win_points"
        )
    rate = mean_interval(points, rng=rng, num_resamples=num_resamples, confidence=confidence)
    p_value = sign_flip_test(points - 0.5, rng=rng, num_resamples=num_resamples)
    return WinRate(rate.value, rate.low, rate.high, rate.num_scored, rate.num_total, p_value)


def average_over_seeds(scores: Float[np.ndarray, "R Q"]) -> Float[np.ndarray, " Q"]:
    """Each question's mean over its scored repeats; NaN where no repeat was scored."""
    counts = (~np.isnan(scores)).sum(axis=0)
    sums = np.nansum(np.sort(scores, axis=0), axis=0)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def dose_trend(
    scores: Float[np.ndarray, "D Q"],
    doses: Float[np.ndarray, " D"],
    *,
    rng: np.random.Generator,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
) -> Trend:
    """The mean over questions of the least-squares slope of score against dose, and its test.

    ``doses`` holds the dose of each row, such as the shift rate; the slope is per unit of it. A
    question counts once two of its doses are scored. Edges and population as in `mean_interval`.

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
    covariance = (offsets * np.where(scored, scores, 0.0)).sum(axis=0)
    slopes = np.full(counts.shape, np.nan)
    np.divide(covariance, spread, out=slopes, where=counts >= 2)
    slope = mean_interval(slopes, rng=rng, num_resamples=num_resamples, confidence=confidence)
    p_value = sign_flip_test(slopes, rng=rng, num_resamples=num_resamples)
    return Trend(slope.value, slope.low, slope.high, slope.num_scored, slope.num_total, p_value)


def over_training_runs(
    scores: Float[np.ndarray, "N Q"],
    *,
    rng: np.random.Generator,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
) -> TrainingRuns:
    """The mean over training runs and questions, for these models and for the recipe behind them.

    ``these_runs`` averages the runs inside each question and bootstraps the questions: it says
    nothing about what another training seed would give. ``new_runs`` lets questions and runs vary:
    ``value ± t sqrt(v_runs + v_questions)``, the squared standard errors of the per-run and of the
    per-question means, with Welch-Satterthwaite degrees of freedom and no ends below two runs or
    two questions. Noise of single cells is counted in both parts, so it errs wide.

    The two-way percentile bootstrap was measured against it and rejected: where the spread of runs
    dominates, its 95 % interval covers 77 % with 3 runs and 88 % with 5 (this one 93 %).

    References:
        Cameron, Gelbach and Miller, 2011 (two-way clustering); Welch, 1947.
    """
    questions = average_over_seeds(scores)
    runs = average_over_seeds(scores.T)
    these = mean_interval(questions, rng=rng, num_resamples=num_resamples, confidence=confidence)
    low = high = None
    num_runs = int((~np.isnan(runs)).sum())
    if these.value is not None and num_runs >= 2 and these.num_scored >= 2:
        parts = np.array(
            [
                np.nanvar(runs, ddof=1) / num_runs,
                np.nanvar(questions, ddof=1) / these.num_scored,
            ]
        )
        low = high = these.value
        if parts.sum() > 0:
            freedom = np.array([num_runs - 1, these.num_scored - 1])
            degrees = parts.sum() ** 2 / (parts**2 / freedom).sum()
            half = float(stats.t.ppf((1 + confidence) / 2, degrees) * np.sqrt(parts.sum()))
            low, high = these.value - half, these.value + half
    return TrainingRuns(
        per_run=tuple(None if np.isnan(mean) else float(mean) for mean in runs),
        these_runs=these,
        new_runs=Estimate(these.value, low, high, these.num_scored, these.num_total),
    )


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted to control the false discovery rate over one family of tests.

    None and NaN mean missing: they stay missing (None) and do not count in the family. A p-value
    outside ``[0, 1]`` raises DataError.

    References:
        Benjamini and Hochberg, 1995; `scipy.stats.false_discovery_control`.
    """
    present = _present(p_values)
    if not present:
        return [None] * len(p_values)
    adjusted = stats.false_discovery_control(list(present.values()), method="bh")
    return _spread(dict(zip(present, adjusted, strict=True)), len(p_values))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted to control the chance of any false rejection, under any dependence.

    Missing values and errors as in `benjamini_hochberg`.

    References:
        Holm, 1979.
    """
    present = _present(p_values)
    largest = 0.0
    adjusted: dict[int, float] = {}
    for rank, place in enumerate(sorted(present, key=present.__getitem__)):
        largest = max(largest, min(1.0, (len(present) - rank) * present[place]))
        adjusted[place] = largest
    return _spread(adjusted, len(p_values))


def _scored(scores: Float[np.ndarray, " Q"], *, where: str) -> Float[np.ndarray, " P"]:
    scored = scores[~np.isnan(scores)].astype(np.float64)
    if np.isinf(scored).any():
        raise DataError(f"{where}: expected finite scores or NaN for missing, got an infinite one")
    return scored


def _check(num_resamples: int, *, at_least: int) -> None:
    if num_resamples < at_least:
        raise ConfigError(f"num_resamples: expected at least {at_least}, got {num_resamples}")


def _present(p_values: Sequence[float | None]) -> dict[int, float]:
    present = {i: float(p) for i, p in enumerate(p_values) if p is not None and not np.isnan(p)}
    for place, p_value in present.items():
        if not 0 <= p_value <= 1:
            raise DataError(f"p_values[{place}]: expected a p-value in [0, 1], got {p_value}")
    return present


def _spread(adjusted: dict[int, float], length: int) -> list[float | None]:
    return [float(adjusted[i]) if i in adjusted else None for i in range(length)]
