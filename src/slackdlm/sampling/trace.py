"""What happened in which step? Traces of decodings as compact JSON, for replays and for counting."""

from typing import Any

from slackdlm.errors import DataError
from slackdlm.sampling.decoding import Commit, Generation

_COLUMNS = ("positions", "tokens", "confidences", "altered", "displacements")


def trace_row(answer: Generation) -> dict[str, Any]:
    """The canvas and the steps of a traced answer.

    A step is five lists: positions, tokens, confidences (4 digits), altered (0 or 1) and displacements.

    Raises:
        DataError: If the answer was decoded without ``trace``.
    """
    if answer.steps is None:
        raise DataError("trace: the answer has no steps; decode with SamplerConfig(trace=True)")
    steps: list[list[list[float]]] = []
    for commits in answer.steps:
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
