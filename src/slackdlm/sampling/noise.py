"""Where does a row's randomness come from? From its own stream, so that batch-mates change nothing."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64


class Cells(NamedTuple):
    """Masked cells, row by row; on the host."""

    rows: Int64[np.ndarray, " M"]
    positions: Int64[np.ndarray, " M"]


class RowNoise:
    """One stream of uniform numbers per row.

    Args:
        seed: With a row's id it decides that row's stream.
        row_ids: One id per row, at least 0.
    """

    def __init__(self, seed: int, row_ids: Sequence[int]) -> None:
        self._streams = [np.random.Generator(np.random.PCG64([seed, row])) for row in row_ids]

    def draw(self, cells: Cells, width: int) -> Float64[np.ndarray, "M width"]:
        """Uniforms in ``[0, 1)`` for each cell, from its row's stream."""
        counts = np.bincount(cells.rows, minlength=len(self._streams)).tolist()
        draws = [
            stream.random((count, width))
            for stream, count in zip(self._streams, counts, strict=True)
            if count
        ]
        return np.concatenate(draws)
