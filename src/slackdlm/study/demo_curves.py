"""How did training go? One run's log, thinned for plots."""

import json
from pathlib import Path
from typing import Any

import numpy as np


def training_curves(log: Path, *, arm: str, seed: int, every: int = 25) -> dict[str, Any]:
    """Training loss averaged over ``every`` steps, and each evaluation where it was made.

    Args:
        log: The run's ``log.jsonl``.
        arm: Its arm.
        seed: Its training seed.
        every: Steps per point.
    """
    points: dict[int, dict[str, Any]] = {}
    losses: list[float] = []
    for line in log.read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        if "loss" in row:
            losses.append(row["loss"])
        if losses and ("eval_ce" in row or len(losses) == every):
            point = {"step": row["step"], "loss": float(np.mean(losses))}
            points[row["step"]] = point | {"eval_ce": None, "eval_objective": None}
            losses = []
        if "eval_ce" in row and row["step"] in points:
            points[row["step"]] |= {key: row[key] for key in ("eval_ce", "eval_objective")}
    return {"arm": arm, "seed": seed, "points": list(points.values())}
