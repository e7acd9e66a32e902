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
from jaxtyping import Float, Int
from scipy import stats
from scipy.special import expit

from slackdlm.errors import ConfigError, DataError
from slackdlm.evaluation.benchmarks.arena_hard import weight_of
from slackdlm.evaluation.judgments import Game
from slackdlm.evaluation.statistics.bootstrap import Estimate, check_confidence
from slackdlm.evaluation.statistics.questions import game_scores

COVARIATES: Final = ("length", "headers", "lists", "bold")


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
    style: Mapping[tuple[str, str], Mapping[str, Any]],
    *,
    covariates: Sequence[str] = COVARIATES,
    weight: int = 3,
    centred: bool = False,
    confidence: float = 0.95,
) -> StyleControlled:
    """Fit one strength per system and one effect per covariate on all games against one baseline.

    Rows and weights are Arena-Hard's. Intervals are Wald on the log-odds with errors clustered by
    question, where the original resamples rows.

    Args:
        games: System -> its games, all against the same baseline and by the same judge.
        style: (question id, system) -> metadata as in `arena_hard.style_metadata`, for every answer.
        covariates: Any of `COVARIATES`, in any number.
        weight: Rows of a strong verdict.
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
    rows: list[tuple[int, str, float, int]] = []
    features: list[list[float]] = []
    totals: dict[str, tuple[int, int]] = {}
    for place, system in enumerate(systems):
        scored = game_scores(games[system])
        whole = {q for q, s in zip(scored.ids, scored.scores, strict=True) if not np.isnan(s)}
        totals[system] = (len(whole), len(scored.ids))
        for game in games[system]:
            if game.question_id in whole and game.score is not None:
                rows.append((place, game.question_id, game.score, weight_of(game, weight)))
                features.append(style_differences(style, game))
    if not rows:
        empty = {s: Estimate(None, None, None, 0, totals[s][1]) for s in systems}
        return StyleControlled(empty, {}, False)
    names = {name: place for place, name in enumerate(sorted({row[1] for row in rows}))}
    table = np.array(features, dtype=np.float64).reshape(len(rows), len(COVARIATES))
    table = table[:, [COVARIATES.index(name) for name in covariates]]
    weights = np.array([row[3] for row in rows], dtype=np.float64)
    chosen, scaled = _scaled(table, weights, centred=centred)
    strengths = np.eye(len(systems))[[row[0] for row in rows]]
    fitted = fit_logistic(
        np.concatenate([strengths, scaled], axis=1),
        np.array([row[2] for row in rows], dtype=np.float64),
        weights,
        np.array([names[row[1]] for row in rows]),
    )
    estimates: dict[str, Estimate] = {}
    half = float(stats.norm.ppf((1 + confidence) / 2))
    for place, system in enumerate(systems):
        ends: tuple[float | None, float | None, float | None] = (None, None, None)
        if fitted is not None:
            at, error = fitted.coefficients[place], fitted.errors[place]
            ends = (float(expit(at)), None, None)
            if error > 1e-9:  # neither NaN, of one question, nor 0, of games that all agree
                low, high = (float(expit(at + step * error)) for step in (-half, half))
                ends = (ends[0], low, high)
        estimates[system] = Estimate(*ends, *totals[system])
    effects: dict[str, float] = dict.fromkeys(covariates, 0.0) if fitted is not None else {}
    if fitted is not None:
        for place, column in enumerate(chosen):
            effects[covariates[column]] = float(fitted.coefficients[len(systems) + place])
    return StyleControlled(estimates, effects, fitted is not None)


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


def style_differences(
    style: Mapping[tuple[str, str], Mapping[str, Any]], game: Game
) -> list[float]:
    """The four covariates of a game, before scaling: above 0 where ``a`` is longer or has more Markdown."""
    a, b = (_measures(style, game.question_id, system) for system in (game.a, game.b))
    length = (a[0] - b[0]) / (a[0] + b[0]) if a[0] + b[0] else 0.0
    densities = ((x / (a[0] + 1), y / (b[0] + 1)) for x, y in zip(a[1:], b[1:], strict=True))
    return [length, *((x - y) / (x + y + 1) for x, y in densities)]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A weighted logistic regression."""

    coefficients: Float[np.ndarray, " P"]
    """Maximum-likelihood estimates."""
    errors: Float[np.ndarray, " P"]
    """Cluster-robust standard errors; NaN with fewer clusters than two, 0 where nothing varies."""


def fit_logistic(
    features: Float[np.ndarray, "N P"],
    outcomes: Float[np.ndarray, " N"],
    weights: Float[np.ndarray, " N"],
    clusters: Int[np.ndarray, " N"],
) -> Fitted | None:
    """Logistic regression by Newton's method; outcomes in ``[0, 1]``, no intercept of its own.

    None if there is no finite maximum (complete separation) or the features are collinear.
    """
    at = np.zeros(features.shape[1])
    for _ in range(50):
        probs = expit(features @ at)
        gradient = features.T @ (weights * (outcomes - probs))
        hessian = (features * (weights * probs * (1 - probs))[:, None]).T @ features
        if np.linalg.cond(hessian) > 1e12:
            return None
        step = np.linalg.solve(hessian, gradient)
        # A step of more than 2 in the log-odds overshoots; near the maximum it is never cut.
        at = at + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        if float(np.abs(step).max()) < 1e-10:
            break
    else:
        return None
    if np.abs(at).max() > 25:
        return None
    names, place = np.unique(clusters, return_inverse=True)
    residuals = features * (weights * (outcomes - expit(features @ at)))[:, None]
    sums = np.zeros((names.size, features.shape[1]))
    np.add.at(sums, place, residuals)
    bread = np.linalg.inv(hessian)
    factor = names.size / (names.size - 1) if names.size > 1 else np.nan
    errors = np.sqrt(factor * np.diag(bread @ (sums.T @ sums) @ bread))
    return Fitted(at, errors)


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


def _measures(
    style: Mapping[tuple[str, str], Mapping[str, Any]], question_id: str, system: str
) -> list[float]:
    row = style.get((question_id, system))
    where = f"answer of {system!a} to question {question_id!a}"
    if row is None:
        raise DataError(
            f"{where}: style control needs it and there is none; give both answer files"
        )
    found = [_count(row.get("token_len"), where=where)]
    for key in ("header_count", "list_count", "bold_count"):
        counts = row.get(key)
        if not isinstance(counts, Mapping):
            raise DataError(f"{where}: no {key} in its metadata; use arena_hard.style_metadata")
        found.append(sum(_count(value, where=where) for value in counts.values()))
    return found


def _count(value: object, *, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise DataError(f"{where}: expected a count of at least 0 in its metadata, got {value!a}")
    return float(value)
