"""From judgments to figures: quality, win rates and source texts of the demo, with the question as the unit.

Intervals: with one training run they speak about new questions put to these models; with several, about new
questions and new training runs (`over_training_runs`). p-values always speak about these models.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float

from slackdlm.statistics import (
    Estimate,
    average_over_seeds,
    benjamini_hochberg,
    mean_interval,
    over_training_runs,
    sign_flip_test,
    win_points,
)
from slackdlm.study.demo_scores import Cell, Scores, distinct_bigrams
from slackdlm.study.result import QualityRow, Source, WinRow
from slackdlm.study.toy_judge import judge
from slackdlm.study.toy_language import Task

PER_QUESTION = (
    "quality",
    "grammatical",
    "coverage",
    "right_count",
    "words",
    "too_long",
    "adjectives",
    "log_likelihood",
    "slack_share",
    "forwards",
)
"""Metrics with one value per answer; their meaning is in `toy_judge.Verdict` and ``answers.jsonl``."""

BOUNDS = {
    "quality": (0.0, 1.0),
    "grammatical": (0.0, 1.0),
    "coverage": (0.0, 1.0),
    "right_count": (0.0, 1.0),
    "too_long": (0.0, 1.0),
    "adjectives": (0.0, 1.0),
    "slack_share": (0.0, 1.0),
    "log_likelihood": (-math.inf, 0.0),
}
"""Range of each metric, which no interval may leave; the others are counts."""


def _estimate(
    scores: Float[np.ndarray, "N Q"],
    rng: np.random.Generator,
    bounds: tuple[float, float] | None,
) -> tuple[Estimate, list[float | None]]:
    """The mean with its interval, and the mean of each training run."""
    runs = over_training_runs(scores, rng=rng, bounds=bounds)
    return runs.new_runs if len(scores) > 1 else runs.these_runs, list(runs.per_run)


def quality_rows(
    scores: Scores, *, canvas_length: int, rng: np.random.Generator
) -> list[QualityRow]:
    """One row per setting: every metric with its interval, and the realised dose."""
    rows: list[QualityRow] = []
    for cell in scores.rows:
        metrics: dict[str, Any] = {}
        per_run: dict[str, list[float | None]] = {}
        for metric in PER_QUESTION:
            table = np.stack([average_over_seeds(run) for run in scores.array(cell, metric)])
            bounds = BOUNDS.get(metric, (0.0, math.inf))
            metrics[metric], per_run[metric] = _estimate(table, rng, bounds)
        bigrams = scores.distinct_bigrams(cell)
        per_run["distinct_bigrams"] = bigrams
        metrics["distinct_bigrams"] = _bare(_mean(bigrams), scores.num_questions)
        row = cell._asdict() | {
            "tokens_per_step": canvas_length / cell.steps,
            "metrics": metrics,
            "per_training_seed": per_run,
            "dose": scores.dose(cell),
        }
        rows.append(QualityRow.model_validate(row))
    return rows


def _bare(value: float | None, num_questions: int) -> Estimate:
    """A figure of a whole corpus, which has no interval."""
    return Estimate(value, None, None, num_questions, num_questions)


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, or None where any value is missing: half the training runs are not all of them."""
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present and len(present) == len(values) else None


def source_figures(tasks: Sequence[Task], *, rng: np.random.Generator) -> Source:
    """The held-out source stories under the same judge: what length and diversity to expect."""
    verdicts = [judge(task.prompt, task.story)._asdict() for task in tasks]
    metrics: dict[str, Any] = {}
    for metric in verdicts[0]:
        # None, where there is nothing to measure, becomes NaN.
        scored = np.array([verdict[metric] for verdict in verdicts], dtype=np.float64)
        bounds = BOUNDS.get(metric, (0.0, math.inf))
        metrics[metric] = mean_interval(scored, rng=rng, bounds=bounds)
    bigrams = distinct_bigrams([task.story for task in tasks])
    metrics["distinct_bigrams"] = _bare(bigrams, len(tasks))
    return Source.model_validate({"metrics": metrics})


def win_rate_rows(scores: Scores, *, rng: np.random.Generator) -> list[WinRow]:
    """Pairwise win rates on ``quality``: each arm against the base and ``ce``, each probe against its baseline run.

    Benjamini-Hochberg runs over all of them as one family.
    """
    rows: list[dict[str, Any]] = []
    for cell in scores.rows:
        rivals: list[tuple[str, Cell]] = []
        for rival in ("base", "ce"):
            other = cell._replace(arm=rival)
            if cell.arm not in ("base", rival) and other in scores.rows:
                rivals.append((rival, other))
        baseline = cell._replace(kind="none", rate=0.0)
        if cell != baseline:
            rivals.append(("self", baseline))
        for name, other in rivals:
            points = _points(scores.array(cell, "quality"), scores.array(other, "quality"))
            estimate, per_run = _estimate(points, rng, (0.0, 1.0))
            p_value = sign_flip_test(average_over_seeds(points) - 0.5, rng=rng)
            row = cell._asdict() | {"against": name, "per_training_seed": per_run}
            rows.append(row | asdict(estimate) | {"p_value": p_value})
    adjusted = benjamini_hochberg([row["p_value"] for row in rows])
    return [
        WinRow.model_validate(row | {"p_adjusted": p_adjusted})
        for row, p_adjusted in zip(rows, adjusted, strict=True)
    ]


def _points(
    a: Float[np.ndarray, "N R Q"], b: Float[np.ndarray, "N P Q"]
) -> Float[np.ndarray, "N Q"]:
    """Win points per training run and question, averaged over decoding seeds (paired; one seed serves all)."""
    num_seeds = max(a.shape[1], b.shape[1])
    a = np.broadcast_to(a, (a.shape[0], num_seeds, a.shape[2])) if a.shape[1] == 1 else a
    b = np.broadcast_to(b, (b.shape[0], num_seeds, b.shape[2])) if b.shape[1] == 1 else b
    points = [
        [win_points(x, y) for x, y in zip(run_a, run_b, strict=True)]
        for run_a, run_b in zip(a, b, strict=True)
    ]
    return np.stack([average_over_seeds(np.stack(run)) for run in points])
