"""Repeats and training runs: what varies inside a question, and what between runs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from slackdlm.statistics.bootstrap import Estimate, mean_interval


@dataclass(frozen=True)
class TrainingRuns:
    """A mean over several training runs, with one interval per population it may speak about."""

    per_run: tuple[float | None, ...]
    """The mean over questions of each training run."""
    these_runs: Estimate
    """Interval for new questions put to exactly these trained models."""
    new_runs: Estimate
    """Interval for new questions put to models trained anew by the same recipe."""


def average_over_seeds(scores: Float[np.ndarray, "R Q"]) -> Float[np.ndarray, " Q"]:
    """Each question's mean over its scored repeats; NaN where no repeat was scored."""
    counts = (~np.isnan(scores)).sum(axis=0)
    sums = np.nansum(np.sort(scores, axis=0), axis=0)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def over_training_runs(
    scores: Float[np.ndarray, "N Q"],
    *,
    rng: np.random.Generator,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = None,
) -> TrainingRuns:
    """The mean over training runs and questions, for these models and for the recipe behind them.

    ``these_runs`` averages the runs inside each question and bootstraps the questions: it says
    nothing about what another training seed would give. ``new_runs`` lets questions and runs vary:
    ``value ± t sqrt(v_runs + v_questions)``, the squared standard errors of the per-run and of the
    per-question means, with Welch-Satterthwaite degrees of freedom and no ends below two runs or
    two questions. Noise of single cells is counted in both parts, so it errs wide. With ``bounds``,
    the range a score can have, its ends are cut to it; cells that all agree get what `mean_interval` gives them.

    The two-way percentile bootstrap was measured against it and rejected: where the spread of runs
    dominates, its 95 % interval covers 77 % with 3 runs and 88 % with 5 (this one 93 %).

    References:
        Cameron, Gelbach and Miller, 2011 (two-way clustering); Welch, 1947.
    """
    questions = average_over_seeds(scores)
    runs = average_over_seeds(scores.T)
    these = mean_interval(
        questions, rng=rng, num_resamples=num_resamples, confidence=confidence, bounds=bounds
    )
    low = high = None
    num_runs = int((~np.isnan(runs)).sum())
    if these.value is not None and num_runs >= 2 and these.num_scored >= 2:
        parts = np.array(
            [
                np.nanvar(runs, ddof=1) / num_runs,
                np.nanvar(questions, ddof=1) / these.num_scored,
            ]
        )
        low, high = these.low, these.high
        if np.sqrt(parts.sum()) > 1e-12 * abs(these.value):  # else rounding alone
            freedom = np.array([num_runs - 1, these.num_scored - 1])
            degrees = parts.sum() ** 2 / (parts**2 / freedom).sum()
            half = float(stats.t.ppf((1 + confidence) / 2, degrees) * np.sqrt(parts.sum()))
            ends = (these.value - half, these.value + half)
            low, high = (
                ends if bounds is None else (max(ends[0], bounds[0]), min(ends[1], bounds[1]))
            )
    return TrainingRuns(
        per_run=tuple(None if np.isnan(mean) else float(mean) for mean in runs),
        these_runs=these,
        new_runs=Estimate(these.value, low, high, these.num_scored, these.num_total),
    )
