"""How sure are we? Intervals and tests whose unit of analysis is the question.

Axis letters: ``Q`` questions, ``R`` repeats (decoding seeds), ``N`` training runs, ``D`` doses. In
arrays NaN means missing (never scored); in results None does, and every result says how many
questions were scored out of how many. The order of the questions changes nothing, seed included.

Arguments with one meaning throughout: ``rng`` source of randomness; ``num_resamples`` bootstrap
resamples of the questions, or sign patterns; ``confidence`` the coverage aimed at, in ``(0, 1)``.
An infinite score raises DataError, ``num_resamples`` or ``confidence`` out of range ConfigError.
How well intervals and tests keep their word was measured: ``docs/calibration.md``.
"""

from slackdlm.statistics.bootstrap import (
    Estimate,
    mean_interval,
    ratio_interval,
    standard_error,
)
from slackdlm.statistics.multiplicity import benjamini_hochberg, holm
from slackdlm.statistics.permutation import exact_mcnemar, sign_flip_test
from slackdlm.statistics.power import minimum_detectable, questions_needed
from slackdlm.statistics.runs import TrainingRuns, average_over_seeds, over_training_runs
from slackdlm.statistics.trend import Trend, dose_trend
from slackdlm.statistics.winrate import WinRate, win_points, win_rate

__all__ = [
    "Estimate",
    "TrainingRuns",
    "Trend",
    "WinRate",
    "average_over_seeds",
    "benjamini_hochberg",
    "dose_trend",
    "exact_mcnemar",
    "holm",
    "mean_interval",
    "minimum_detectable",
    "over_training_runs",
    "questions_needed",
    "ratio_interval",
    "sign_flip_test",
    "standard_error",
    "win_points",
    "win_rate",
]
