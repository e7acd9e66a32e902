"""How many questions does an effect need, and what could a set of questions show? Before money is spent."""

from math import ceil, sqrt

import numpy as np
from scipy import stats

from slackdlm.errors import ConfigError


def minimum_detectable(
    spread: float, num_questions: int, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The smallest true effect on a mean over questions that a two-sided test finds with probability ``power``.

    ``(t[1 - alpha/2] + t[power]) * spread / sqrt(n)`` with ``n - 1`` degrees of freedom, in the unit of the score.

    Args:
        spread: Standard deviation of the per-question score, or of the per-question difference if paired.
        num_questions: Questions scored.
        power: That probability.
        alpha: Two-sided level of the test.

    Raises:
        ConfigError: If the spread is negative, there are fewer than 2 questions, or a share is none.
    """
    _check(spread, power, alpha)
    if num_questions < 2:
        raise ConfigError(f"num_questions: expected at least 2, got {num_questions}")
    quantiles = stats.t.isf([alpha / 2, 1 - power], num_questions - 1)
    return float(quantiles.sum()) * spread / sqrt(num_questions)


def questions_needed(
    spread: float, effect: float, *, power: float = 0.8, alpha: float = 0.05
) -> int:
    """The fewest questions, at least 2, whose `minimum_detectable` effect is at most ``effect``.

    Raises:
        ConfigError: If the effect is not above 0, or as in `minimum_detectable`.
    """
    _check(spread, power, alpha)
    if not effect > 0 or not np.isfinite(effect):
        raise ConfigError(f"effect: expected a number above 0, got {effect}")
    normal = float(stats.norm.isf([alpha / 2, 1 - power]).sum())
    # The normal count is a lower bound; t needs a few more.
    size = max(2, ceil((normal * spread / effect) ** 2))
    while minimum_detectable(spread, size, power=power, alpha=alpha) > effect:
        size += 1
    return size


def _check(spread: float, power: float, alpha: float) -> None:
    if not 0 <= spread < np.inf:
        raise ConfigError(f"spread: expected a standard deviation of at least 0, got {spread}")
    for name, share in (("power", power), ("alpha", alpha)):
        if not 0 < share < 1:
            raise ConfigError(f"{name}: expected a share in (0, 1), got {share}")
    if power < alpha:
        raise ConfigError(f"power: expected at least alpha = {alpha}, got {power}")
