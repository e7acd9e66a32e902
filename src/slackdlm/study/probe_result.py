"""What did the disturbances cost? The figures of a probe, with the question as the unit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from slackdlm.judgments import Game, Tally, tally
from slackdlm.sampling.intervention import Dose
from slackdlm.statistics import (
    Estimate,
    Trend,
    average_over_seeds,
    benjamini_hochberg,
    dose_trend,
    mean_interval,
    sign_flip_test,
)
from slackdlm.study.grid import Condition, Grid
from slackdlm.study.questions import game_scores


@dataclass(frozen=True)
class ProbeRow:
    """One arm under one disturbance, against its own undisturbed answers."""

    arm: str
    kind: str
    rate: float
    """Share of content tokens asked for."""
    win_rate: Estimate
    """In [0, 1]; 0.5: no change. Over questions."""
    p_value: float | None
    """Two-sided sign-flip p of "no change"."""
    p_adjusted: float | None
    """Benjamini-Hochberg over all rows of the probe."""
    per_seed: tuple[float | None, ...]
    """Win rate of each decoding seed."""
    dose: Dose
    """What was really done, summed over questions and seeds."""
    tally: Tally
    """Games by what became of them."""


@dataclass(frozen=True)
class ProbeTrend:
    """How an arm's win rate falls with the rate of one kind."""

    arm: str
    kind: str
    trend: Trend
    """Slope per unit of rate, undisturbed answers counted as 0.5 at rate 0."""


@dataclass(frozen=True)
class ProbeContrast:
    """How much better an arm withstands a disturbance than the first arm does."""

    arm: str
    against: str
    kind: str
    rate: float
    difference: Estimate
    """Win rate against itself, minus that of ``against``, over the questions of both."""
    p_value: float | None
    p_adjusted: float | None
    """Benjamini-Hochberg over all contrasts."""


@dataclass(frozen=True)
class ProbeResult:
    """All figures of a probe."""

    benchmark: str
    judge: str
    num_questions: int
    rows: tuple[ProbeRow, ...]
    trends: tuple[ProbeTrend, ...]
    contrasts: tuple[ProbeContrast, ...]
    warnings: tuple[str, ...]
    """What a reader must know first."""


def probe_result(
    games: Sequence[Game],
    doses: dict[tuple[str, Condition], Dose],
    grid: Grid,
    arms: Sequence[str],
    *,
    benchmark: str,
    judge: str,
    num_resamples: int = 10_000,
) -> ProbeResult:
    """The figures of a probe, from its games.

    Args:
        games: Of all arms; systems are named by this module.
        doses: What the interventions really did, by arm and condition.
        grid: As it was answered.
        arms: Their names; the first is the one the others are contrasted with.
        benchmark: For the record.
        judge: For the record.
        num_resamples: Of each bootstrap and test.

    Returns:
        Rows in the order of arms, kinds and rates. A question that lacks a game counts as missing.
    """
    ids = sorted({game.question_id for game in games})
    points: dict[tuple[str, Condition], Float[np.ndarray, "R Q"]] = {}
    tallies: dict[tuple[str, Condition], Tally] = {}
    for arm in arms:
        for condition in grid.interventions():
            by_seed = [
                [game for game in games if game.a == grid.system(arm, condition, seed)]
                for seed in grid.seeds(condition)
            ]
            points[arm, condition] = np.stack([game_scores(own).at(ids) for own in by_seed])
            tallies[arm, condition] = tally([game for own in by_seed for game in own])
    rows = _rows(points, doses, tallies, num_resamples=num_resamples)
    return ProbeResult(
        benchmark,
        judge,
        len(ids),
        tuple(rows),
        tuple(_trends(points, grid, arms, num_resamples=num_resamples)),
        tuple(_contrasts(points, arms, num_resamples=num_resamples)),
        tuple(_warnings(rows, grid)),
    )


def _rng() -> np.random.Generator:
    """Every bootstrap and test starts from the same seed, so that no figure depends on those before it."""
    return np.random.Generator(np.random.PCG64(0))


def _rows(
    points: dict[tuple[str, Condition], Float[np.ndarray, "R Q"]],
    doses: dict[tuple[str, Condition], Dose],
    tallies: dict[tuple[str, Condition], Tally],
    *,
    num_resamples: int,
) -> list[ProbeRow]:
    found: list[ProbeRow] = []
    for (arm, condition), scores in points.items():
        mean = average_over_seeds(scores)
        found.append(
            ProbeRow(
                arm,
                condition.label,
                condition.rate,
                mean_interval(mean, rng=_rng(), num_resamples=num_resamples, bounds=(0.0, 1.0)),
                sign_flip_test(mean - 0.5, rng=_rng(), num_resamples=num_resamples),
                None,
                tuple(_mean(seed) for seed in scores),
                doses[arm, condition],
                tallies[arm, condition],
            )
        )
    adjusted = benjamini_hochberg([row.p_value for row in found])
    return [replace(row, p_adjusted=p) for row, p in zip(found, adjusted, strict=True)]


def _trends(
    points: dict[tuple[str, Condition], Float[np.ndarray, "R Q"]],
    grid: Grid,
    arms: Sequence[str],
    *,
    num_resamples: int,
) -> Iterator[ProbeTrend]:
    for arm in arms:
        for kind in grid.kinds:
            by_rate = [
                average_over_seeds(points[arm, condition])
                for condition in grid.interventions()
                if condition.kind == kind
            ]
            undisturbed = np.where(np.isnan(by_rate).all(axis=0), np.nan, 0.5)
            trend = dose_trend(
                np.stack([undisturbed, *by_rate]),
                np.array([0.0, *grid.rates]),
                rng=_rng(),
                num_resamples=num_resamples,
                bounds=(0.0, 1.0),
            )
            yield ProbeTrend(arm, kind, trend)


def _contrasts(
    points: dict[tuple[str, Condition], Float[np.ndarray, "R Q"]],
    arms: Sequence[str],
    *,
    num_resamples: int,
) -> list[ProbeContrast]:
    found: list[ProbeContrast] = []
    for (arm, condition), scores in points.items():
        if arm == arms[0]:
            continue
        difference = average_over_seeds(scores) - average_over_seeds(points[arms[0], condition])
        rng = _rng()
        found.append(
            ProbeContrast(
                arm,
                arms[0],
                condition.label,
                condition.rate,
                mean_interval(difference, rng=rng, num_resamples=num_resamples, bounds=(-1.0, 1.0)),
                sign_flip_test(difference, rng=rng, num_resamples=num_resamples),
                None,
            )
        )
    adjusted = benjamini_hochberg([contrast.p_value for contrast in found])
    return [replace(one, p_adjusted=p) for one, p in zip(found, adjusted, strict=True)]


def _mean(scores: Float[np.ndarray, " Q"]) -> float | None:
    scored = scores[~np.isnan(scores)]
    return float(scored.mean()) if scored.size else None


def _warnings(rows: Sequence[ProbeRow], grid: Grid) -> Iterator[str]:
    missing = sum(row.tally.num_total - row.tally.num_scored for row in rows)
    total = sum(row.tally.num_total for row in rows)
    if missing:
        yield f"{missing} of {total} games have no score; their questions count as missing."
    few = [row for row in rows if row.dose.displaced == 0]
    if few:
        names = ", ".join(f"{row.arm} {row.kind} {row.rate:g}" for row in few[:3])
        yield (
            f"{len(few)} of {len(rows)} conditions disturbed no token at all (such as {names}): the rate is too low "
            "for this many tokens, so their win rate says nothing."
        )
    if grid.num_seeds == 1:
        yield "One decoding seed: the figures speak about these very displacements."
