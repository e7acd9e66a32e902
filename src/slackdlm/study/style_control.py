"""Would the model still win at equal length and Markdown? A logistic Bradley-Terry model with style covariates.

Arena-Hard's covariates: token length as ``(a - b) / (a + b)``; headers, lists and bold as counts per token, each as
``(a - b) / (a + b + 1)``. Any subset of the four may be controlled for; the original's slices are right for none of
them and for all four only.

References:
    Li et al., "Does style matter?", 2024 (lmsys.org); lmarena/arena-hard-auto at 196f6b82, ``show_result.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from scipy import stats
from scipy.special import expit

from slackdlm.benchmarks.arena_hard import weight_of
from slackdlm.errors import ConfigError, DataError
from slackdlm.judgments import Game
from slackdlm.statistics.bootstrap import Estimate, check_confidence
from slackdlm.statistics.logistic import Fitted, Rows, fit_logistic
from slackdlm.study.questions import QuestionScores, game_scores

COVARIATES: Final = ("length", "headers", "lists", "bold")
StyleMetadata = Mapping[tuple[str, str], Mapping[str, Any]]
"""(question id, system) -> metadata of the answer, as `arena_hard.style_metadata` gives them."""


@dataclass(frozen=True)
class StyleControlled:
    """A win rate with the influence of style taken out."""

    win_rates: Mapping[str, Estimate]
    """System -> win rate against the baseline at equal style, with its clustered interval."""
    coefficients: Mapping[str, float]
    """Covariate -> change of the log-odds of winning per standard deviation of the difference."""
    converged: bool
    """False if no finite maximum exists, as when a system wins everything: then all values are None."""


def style_control(
    games: Mapping[str, Sequence[Game]],
    style: StyleMetadata,
    *,
    covariates: Sequence[str] = COVARIATES,
    centred: bool = False,
    confidence: float = 0.95,
) -> StyleControlled:
    """Fit one strength per system and one effect per covariate on all games against one baseline.

    Rows and weights are Arena-Hard's. Intervals are Wald on the log-odds with errors clustered by
    question, where the original resamples rows.

    Args:
        games: System -> its games, all against the same baseline and by the same judge.
        style: For every answer.
        covariates: Any of `COVARIATES`, in any number.
        centred: False: the win rate at equal style. True: the covariates are centred over all games, as in
            the original, so that the win rate is the one at the average difference of style; with one
            system that controls for next to nothing.
        confidence: As everywhere.

    Raises:
        ConfigError: If a covariate is unknown or named twice.
        DataError: If an answer has no metadata.
    """
    check_confidence(confidence)
    check_covariates(covariates)
    systems = sorted(games)
    scores = {system: game_scores(games[system]) for system in systems}
    # Which system, and the game, of every question that has all of its games.
    rows = [
        (column, game)
        for column, system in enumerate(systems)
        for game in games[system]
        if game.question_id in scores[system].whole
    ]
    table = np.array([style_differences(style, game) for _, game in rows], dtype=np.float64)
    table = table.reshape(len(rows), len(COVARIATES))
    table = table[:, [COVARIATES.index(name) for name in covariates]]
    chosen, fitted = _fit(rows, table, num_systems=len(systems), centred=centred)
    rates = {
        system: _win_rate(fitted, column, scores[system], confidence=confidence)
        for column, system in enumerate(systems)
    }
    if fitted is None:
        return StyleControlled(rates, {}, converged=False)
    effects = dict.fromkeys(covariates, 0.0)
    for column, effect in zip(chosen, fitted.coefficients[len(systems) :].tolist(), strict=True):
        effects[covariates[column]] = effect
    return StyleControlled(rates, effects, converged=True)


def _fit(
    rows: Sequence[tuple[int, Game]],
    table: Float[np.ndarray, "N C"],
    *,
    num_systems: int,
    centred: bool,
) -> tuple[list[int], Fitted | None]:
    """Which columns vary, and the systems' strengths with the effects of these; None without a row or a maximum."""
    if not rows:
        return [], None
    weights = np.array([weight_of(game) for _, game in rows], dtype=np.float64)
    chosen, scaled = _scaled(table, weights, centred=centred)
    strengths = np.eye(num_systems)[[system for system, _ in rows]]
    _, question = np.unique([game.question_id for _, game in rows], return_inverse=True)
    outcomes = np.array([game.score for _, game in rows], dtype=np.float64)
    features = np.concatenate([strengths, scaled], axis=1)
    return chosen, fit_logistic(Rows(features, outcomes, weights, question))


def _win_rate(
    fitted: Fitted | None, column: int, scores: QuestionScores, *, confidence: float
) -> Estimate:
    """The fitted strength of a system as a win rate with its interval."""
    counts = (len(scores.whole), len(scores.ids))
    if fitted is None:
        return Estimate(None, None, None, *counts)
    strength, error = fitted.coefficients[column], fitted.errors[column]
    if not error > 1e-9:  # NaN, of one question, or 0, of games that all agree
        return Estimate(float(expit(strength)), None, None, *counts)
    half = float(stats.norm.ppf((1 + confidence) / 2)) * error
    value, low, high = (float(expit(strength + step)) for step in (0.0, -half, half))
    return Estimate(value, low, high, *counts)


def check_covariates(names: Sequence[str]) -> None:
    """ConfigError unless all are covariates and none is named twice."""
    for name in names:
        if name not in COVARIATES:
            raise ConfigError(
                f"--style-control: there is no covariate {name!a}; use some of {', '.join(COVARIATES)}, or none for "
                "all, and give judgment files before it"
            )
        if list(names).count(name) > 1:
            raise ConfigError(f"--style-control: {name} is named twice; name each covariate once")


def style_differences(style: StyleMetadata, game: Game) -> list[float]:
    """The four covariates of a game, before scaling: above 0 where ``a`` is longer or has more Markdown."""
    a, b = (_measures(style, game.question_id, system) for system in (game.a, game.b))
    length = (a[0] - b[0]) / (a[0] + b[0]) if a[0] + b[0] else 0.0
    densities = ((x / (a[0] + 1), y / (b[0] + 1)) for x, y in zip(a[1:], b[1:], strict=True))
    return [length, *((x - y) / (x + y + 1) for x, y in densities)]


def _scaled(
    table: Float[np.ndarray, "N C"], weights: Float[np.ndarray, " N"], *, centred: bool
) -> tuple[list[int], Float[np.ndarray, "N D"]]:
    """The columns that vary, in standard deviations over rows; constant ones carry no information."""
    mean = np.average(table, axis=0, weights=weights)
    total = weights.sum()
    spread = np.sqrt((weights[:, None] * (table - mean) ** 2).sum(axis=0) / max(total - 1, 1))
    chosen = [int(column) for column in np.flatnonzero(spread > 1e-12)]
    shifted = table - mean if centred else table
    return chosen, shifted[:, chosen] / spread[chosen]


def _measures(style: StyleMetadata, question_id: str, system: str) -> list[float]:
    row = style.get((question_id, system))
    where = f"answer of {system!a} to question {question_id!a}"
    if row is None:
        raise DataError(
            f"{where}: style control needs it and there is none; give both answer files"
        )
    measures = [_count(row.get("token_len"), where=where)]
    for key in ("header_count", "list_count", "bold_count"):
        counts = row.get(key)
        if not isinstance(counts, Mapping):
            raise DataError(f"{where}: no {key} in its metadata; use arena_hard.style_metadata")
        measures.append(sum(_count(value, where=where) for value in counts.values()))
    return measures


def _count(value: object, *, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise DataError(f"{where}: expected a count of at least 0 in its metadata, got {value!a}")
    return float(value)
