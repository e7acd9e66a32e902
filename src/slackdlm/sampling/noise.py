"""Where does a row's randomness come from? From its own stream, so that batch-mates change nothing."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

# Steele et al., 2014 (SplitMix64): the step of its counter and the multipliers of its mixer, as signed numbers.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_MIX = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


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

    def draw(self, cells: Cells, width: int) -> Float64[Tensor, "M width"]:
        """Uniforms in ``[0, 1)`` for each cell, from its row's stream; on the host."""
        counts = np.bincount(cells.rows, minlength=len(self._streams)).tolist()
        draws = torch.empty(len(cells.rows), width, dtype=torch.float64)
        for stream, its_draws in zip(self._streams, draws.split(counts), strict=True):
            stream.random(out=its_draws.numpy())
        return draws

    def keys(self, cells: Cells) -> Int64[np.ndarray, " M"]:
        """One 64-bit key for each cell, from its row's stream: what `uniforms` needs of the host."""
        counts = np.bincount(cells.rows, minlength=len(self._streams)).tolist()
        limits = np.iinfo(np.int64)
        draws = [
            stream.integers(limits.min, limits.max, count, dtype=np.int64, endpoint=True)
            for stream, count in zip(self._streams, counts, strict=True)
            if count
        ]
        return np.concatenate(draws)


def uniforms(keys: Int64[Tensor, " M"], width: int) -> Float64[Tensor, "M width"]:
    """Uniforms in ``[0, 1)`` for each cell, made from its key where the key is: no number crosses from the host.

    At LLaDA's vocabulary the host draws and sends a step's numbers more slowly than a GPU runs the model.

    References:
        Steele et al., 2014: the outputs of SplitMix64 seeded with the key, their upper 53 bits.
    """
    counter = torch.arange(1, width + 1, device=keys.device) * _STEP  # int64 wraps, as it should
    bits = keys[:, None] + counter
    bits = _shifted_in(bits, 30).mul_(_MIX[0])
    bits = _shifted_in(bits, 27).mul_(_MIX[1])
    bits = _shifted_in(bits, 31)
    return _shifted(bits, 11).to(torch.float64).mul_(2.0**-53)


def _shifted_in(bits: Int64[Tensor, "M width"], places: int) -> Int64[Tensor, "M width"]:
    return bits.bitwise_xor_(_shifted(bits, places))


def _shifted(bits: Int64[Tensor, "M width"], places: int) -> Int64[Tensor, "M width"]:
    """To the right, zeros coming in: the sign is a bit like any other."""
    return (bits >> places).bitwise_and_(2 ** (64 - places) - 1)
