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
    paired_difference,
    ratio_interval,
    standard_error,
)
from slackdlm.statistics.judge_bias import PositionBias, length_bias, position_bias
from slackdlm.statistics.multiplicity import benjamini_hochberg, holm
from slackdlm.statistics.permutation import exact_mcnemar, sign_flip_test
from slackdlm.statistics.power import minimum_detectable, questions_needed
from slackdlm.statistics.questions import (
    QuestionScores,
    common_ids,
    game_scores,
    grade_scores,
    in_one_order,
)
from slackdlm.statistics.runs import (
    TrainingRuns,
    average_over_seeds,
    over_training_runs,
)
from slackdlm.statistics.trend import Trend, dose_trend
from slackdlm.statistics.winrate import (
    NullBounds,
    WinRate,
    null_bounds,
    weighted_win_rate,
    win_points,
    win_rate,
)

__all__ = [
    "Estimate", "NullBounds", "PositionBias", "QuestionScores", "TrainingRuns",
    "Trend", "WinRate", "average_over_seeds", "benjamini_hochberg", "common_ids",
    "dose_trend", "exact_mcnemar", "game_scores", "grade_scores", "holm", "in_one_order", "length_bias",
    "mean_interval", "minimum_detectable", "null_bounds", "over_training_runs",
    "paired_difference", "position_bias", "questions_needed", "ratio_interval", "sign_flip_test",
    "standard_error", "weighted_win_rate", "win_points", "win_rate",
]  # fmt: skip
