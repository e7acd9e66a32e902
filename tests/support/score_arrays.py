"""Made-up scores for the tests of statistics."""

from collections.abc import Iterable
from itertools import product

import numpy as np

NAN = float("nan")
FEW = 200
"""Resamples where the exact number does not matter."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def enumerated_p(differences: Iterable[float]) -> float:
    """The two-sided p of a sign-flip test by enumeration."""
    observed = abs(sum(differences))
    sums = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True)))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    return sum(total >= observed - 1e-12 for total in sums) / len(sums)
