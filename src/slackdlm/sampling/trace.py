"""What happened in which step? Traces of decodings as compact JSON, and as frames for replays."""

from typing import Any

from slackdlm.errors import ConfigError, DataError
from slackdlm.models.loaded import LoadedModel
from slackdlm.sampling.decoding import Commit, Generation

_COLUMNS = ("positions", "tokens", "confidences", "altered", "displacements")


def trace_row(answer: Generation) -> dict[str, Any]:
    """The canvas and the steps of a traced answer.

    A step is five lists: positions, tokens, confidences (4 digits), altered (0 or 1) and displacements.

    Raises:
        ConfigError: If the answer was decoded without ``trace``.
    """
    steps: list[list[list[float]]] = []
    for commits in _steps_of(answer):
        columns = [list(column) for column in zip(*commits, strict=True)] or [[]] * len(_COLUMNS)
        columns[2] = [float(f"{confidence:.4g}") for confidence in columns[2]]
        columns[3] = [int(flag) for flag in columns[3]]
        steps.append(columns)
    return {"canvas": answer.canvas, "steps": steps}


def read_steps(row: dict[str, Any]) -> list[list[Commit]]:
    """The commits of a row of :func:`trace_row`.

    Raises:
        DataError: If the row is not of that form.
    """
    try:
        return [
            [
                Commit(int(p), int(t), float(c), bool(a), int(d))
                for p, t, c, a, d in zip(*step, strict=True)
            ]
            for step in row["steps"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"trace: expected steps of {len(_COLUMNS)} equally long lists ({', '.join(_COLUMNS)}), got {error}"
        ) from error


def frames(loaded: LoadedModel, generation: Generation) -> list[dict[str, Any]]:
    """The canvas before the first step and after each step.

    Args:
        loaded: The model; spells the tokens.
        generation: Decoded with ``SamplerConfig(trace=True)``.

    Returns:
        Frames ``{"step", "cells"}``; a cell is ``{"token", "state", "new"}`` with the state ``masked``, ``token``,
        ``slack``, ``end``, ``displaced`` or ``substituted``.

    Raises:
        ConfigError: If the generation was not traced.
    """
    cells = [{"token": "", "state": "masked", "new": False} for _ in generation.canvas]
    rows = [{"step": 0, "cells": cells}]
    for step, commits in enumerate(_steps_of(generation), start=1):
        cells = [cell | {"new": False} for cell in cells]
        for commit in commits:
            token = str(loaded.tokenizer.decode([commit.token]))
            state = _state(loaded, commit)
            cells[commit.position] = {"token": token, "state": state, "new": True}
        rows.append({"step": step, "cells": cells})
    return rows


def _state(loaded: LoadedModel, commit: Commit) -> str:
    if commit.altered:
        return "displaced" if commit.displacement else "substituted"
    if commit.token == loaded.slack_id:
        return "slack"
    return "end" if commit.token in loaded.eos_ids else "token"


def _steps_of(generation: Generation) -> list[list[Commit]]:
    if generation.steps is None:
        raise ConfigError("trace: the answer has no steps; decode with SamplerConfig(trace=True)")
    return generation.steps
