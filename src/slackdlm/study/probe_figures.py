"""What did the interventions cost? The result of a probe, with the question as the unit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float

from slackdlm.judging.judges import Judge
from slackdlm.judgments import Game, Tally, tally
from slackdlm.sampling.intervention import Dose
from slackdlm.statistics import (
    average_over_seeds,
    benjamini_hochberg,
    dose_trend,
    mean_interval,
    sign_flip_test,
)
from slackdlm.study.findings import probe_findings
from slackdlm.study.grid import Condition, Grid
from slackdlm.study.questions import game_scores
from slackdlm.study.result import (
    INTERVENTIONS,
    ContrastRow,
    Result,
    Run,
    Source,
    TrendRow,
    WinRow,
    installed_version,
)
from slackdlm.study.result import Arm as TriedArm

Cells = Mapping[tuple[str, Condition], Float[np.ndarray, "R Q"]]
"""Points by decoding seed and question of every arm under every intervention."""


def probe_result(
    games: Sequence[Game],
    doses: Mapping[tuple[str, Condition], Dose],
    grid: Grid,
    arms: Mapping[str, str],
    *,
    benchmark: str,
    judge: Judge,
    num_resamples: int = 10_000,
) -> Result:
    """The result of a probe, from its games.

    Args:
        games: Of all arms; systems are named by the grid.
        doses: What the interventions really did, by arm and condition.
        grid: As it was answered.
        arms: Name -> model; the first is the one the others are contrasted with.
        benchmark: For the record.
        judge: Who judged, for the record.
        num_resamples: Of each bootstrap and test.

    Returns:
        Win rates in the order of arms, kinds and rates. A question that lacks a game counts as missing.
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
            points[arm, condition] = np.stack([game_scores(seed).at(ids) for seed in by_seed])
            tallies[arm, condition] = tally([game for seed in by_seed for game in seed])
    rows = _win_rows(points, doses, tallies, num_resamples=num_resamples)
    trends = list(_trends(points, grid, list(arms), num_resamples=num_resamples))
    contrasts = _contrasts(points, next(iter(arms)), num_resamples=num_resamples)
    return Result(
        title="What does a displaced token cost?",
        summary=probe_findings(trends, contrasts),
        warnings=list(_warnings(rows, grid)),
        run=_settings(grid, arms, benchmark, judge),
        arms=[TriedArm(name=name, label=name, description=model) for name, model in arms.items()],
        quality=[],
        source=Source(metrics={}),
        win_rates=rows,
        trends=trends,
        contrasts=contrasts,
        samples=[],
        replays=[],
        training=[],
        notes=_notes(benchmark, judge.name, len(ids)),
    )


def _rng() -> np.random.Generator:
    """Every bootstrap and test starts from the same seed, so that no figure depends on those before it."""
    return np.random.Generator(np.random.PCG64(0))


def _win_rows(
    points: Cells,
    doses: Mapping[tuple[str, Condition], Dose],
    tallies: Mapping[tuple[str, Condition], Tally],
    *,
    num_resamples: int,
) -> list[WinRow]:
    rows: list[dict[str, Any]] = []
    for (arm, condition), scores in points.items():
        mean = average_over_seeds(scores)
        rate = mean_interval(mean, rng=_rng(), num_resamples=num_resamples, bounds=(0.0, 1.0))
        sampler = condition.sampler
        rows.append(
            asdict(rate)
            | {
                "arm": arm,
                "temperature": sampler.temperature,
                "steps": sampler.steps or sampler.canvas_length,
                "kind": condition.label,
                "rate": condition.rate,
                "against": "self",
                "p_value": sign_flip_test(mean - 0.5, rng=_rng(), num_resamples=num_resamples),
                "per_decoding_seed": [_mean(seed) for seed in scores],
                "dose": doses[arm, condition],
                "tally": tallies[arm, condition],
            }
        )
    return [WinRow.model_validate(row) for row in _adjusted(rows)]


def _adjusted(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their p-values adjusted as one family."""
    adjusted = benjamini_hochberg([row["p_value"] for row in rows])
    return [row | {"p_adjusted": p} for row, p in zip(rows, adjusted, strict=True)]


def _trends(
    points: Cells, grid: Grid, arms: Sequence[str], *, num_resamples: int
) -> Iterator[TrendRow]:
    """Slope of each arm's win rate by kind, baseline answers counted as 0.5 at rate 0."""
    for arm in arms:
        for kind in grid.kinds:
            by_rate = [
                average_over_seeds(points[arm, condition])
                for condition in grid.interventions()
                if condition.kind == kind
            ]
            baseline = np.where(np.isnan(by_rate).all(axis=0), np.nan, 0.5)
            trend = dose_trend(
                np.stack([baseline, *by_rate]),
                np.array([0.0, *grid.rates]),
                rng=_rng(),
                num_resamples=num_resamples,
                bounds=(0.0, 1.0),
            )
            yield TrendRow.model_validate(asdict(trend) | {"arm": arm, "kind": kind})


def _contrasts(points: Cells, first: str, *, num_resamples: int) -> list[ContrastRow]:
    """How much better each arm withstands each intervention than the first arm does."""
    rows: list[dict[str, Any]] = []
    for (arm, condition), scores in points.items():
        if arm == first:
            continue
        difference = average_over_seeds(scores) - average_over_seeds(points[first, condition])
        rng = _rng()  # the interval and its test share one stream
        estimate = mean_interval(
            difference, rng=rng, num_resamples=num_resamples, bounds=(-1.0, 1.0)
        )
        rows.append(
            asdict(estimate)
            | {"arm": arm, "against": first, "kind": condition.label, "rate": condition.rate}
            | {"p_value": sign_flip_test(difference, rng=rng, num_resamples=num_resamples)}
        )
    return [ContrastRow.model_validate(row) for row in _adjusted(rows)]


def _mean(scores: Float[np.ndarray, " Q"]) -> float | None:
    scored = scores[~np.isnan(scores)]
    return float(scored.mean()) if scored.size else None


def _warnings(rows: Sequence[WinRow], grid: Grid) -> Iterator[str]:
    tallies = [row.tally for row in rows if row.tally is not None]
    total = sum(counts.num_total for counts in tallies)
    missing = total - sum(counts.num_scored for counts in tallies)
    if missing:
        yield f"{missing} of {total} games have no score; their questions count as missing."
    few = [row for row in rows if row.dose is not None and row.dose.displaced == 0]
    if few:
        names = ", ".join(f"{row.arm} {row.kind} {row.rate:g}" for row in few[:3])
        yield (
            f"{len(few)} of {len(rows)} conditions changed no token at all (such as {names}): the rate is too low "
            "for this many tokens, so their win rate says nothing."
        )
    if grid.num_seeds == 1:
        yield "One decoding seed: the figures speak about these very displacements."


def _notes(benchmark: str, judge: str, num_questions: int) -> list[str]:
    kinds = "; ".join(f"{kind}: {text}" for kind, text in INTERVENTIONS.items() if kind != "none")
    return [
        f"Interventions: {kinds}.",
        f"Benchmark {benchmark}, judged by {judge}; {num_questions} questions.",
        "Each arm is judged against its own baseline answers, decoded without an intervention, in both orders; 0.5 "
        "means no change. Decoding seeds are averaged within a question, intervals are BCa bootstraps over questions, "
        "p-values two-sided sign-flip tests, adjusted by Benjamini-Hochberg over all rows (over all contrasts for "
        "those).",
        "An arm whose baseline answers are poor has little to lose: read this beside a comparison of the arms.",
    ]


def _settings(grid: Grid, arms: Mapping[str, str], benchmark: str, judge: Judge) -> Run:
    """No time or place: the same answers and judgments give the same file."""
    config = {
        "benchmark": benchmark,
        "judge": {"name": judge.name, **judge.settings},
        "arms": dict(arms),
        "sampler": asdict(grid.sampler),
        "decoding seeds": grid.num_seeds,
    }
    return Run(slackdlm=installed_version(), config=config)
