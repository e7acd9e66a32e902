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

from slackdlm.benchmarks.arena_hard import weight_of
from slackdlm.errors import ConfigError, DataError
from slackdlm.judgments import Game
from slackdlm.statistics.bootstrap import Estimate, check_confidence
from slackdlm.statistics.questions import QuestionScores, game_scores

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
    whole = {system: scores[system].whole for system in systems}
    rows = [
        (place, game)
        for place, system in enumerate(systems)
        for game in games[system]
        if game.question_id in whole[system]
    ]
    table = np.array(
        [style_differences(style, game) for _, game in rows], dtype=np.float64
    ).reshape(len(rows), len(COVARIATES))
    table = table[:, [COVARIATES.index(name) for name in covariates]]
    chosen, fitted = _fit(rows, table, num_systems=len(systems), centred=centred)
    rates = {
        system: _win_rate(fitted, place, scores[system], confidence=confidence)
        for place, system in enumerate(systems)
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
) -> tuple[list[int], "Fitted | None"]:
    """Which columns vary, and the systems' strengths with the effects of these; None without a row or a maximum."""
    if not rows:
        return [], None
    weights = np.array([weight_of(game) for _, game in rows], dtype=np.float64)
    chosen, scaled = _scaled(table, weights, centred=centred)
    strengths = np.eye(num_systems)[[place for place, _ in rows]]
    fitted = fit_logistic(
        np.concatenate([strengths, scaled], axis=1),
        np.array([game.score for _, game in rows], dtype=np.float64),
        weights,
        _numbered([game.question_id for _, game in rows]),
    )
    return chosen, fitted


def _win_rate(
    fitted: "Fitted | None", place: int, scores: QuestionScores, *, confidence: float
) -> Estimate:
    """The fitted strength at this place as a win rate with its interval."""
    counts = (len(scores.whole), len(scores.ids))
    if fitted is None:
        return Estimate(None, None, None, *counts)
    at, error = fitted.coefficients[place], fitted.errors[place]
    if not error > 1e-9:  # NaN, of one question, or 0, of games that all agree
        return Estimate(float(expit(at)), None, None, *counts)
    half = float(stats.norm.ppf((1 + confidence) / 2)) * error
    return Estimate(float(expit(at)), float(expit(at - half)), float(expit(at + half)), *counts)


def _numbered(ids: Sequence[str]) -> Int[np.ndarray, " N"]:
    """The place of each id among all of them in order."""
    places = {one: place for place, one in enumerate(sorted(set(ids)))}
    return np.array([places[one] for one in ids])


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


def _measures(style: StyleMetadata, question_id: str, system: str) -> list[float]:
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
