"""p-values of a whole family of tests."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from slackdlm.errors import DataError


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted to control the false discovery rate over one family of tests.

    None and NaN mean missing: they stay missing (None) and do not count in the family. A p-value
    outside ``[0, 1]`` raises DataError.

    References:
        Benjamini and Hochberg, 1995; `scipy.stats.false_discovery_control`.
    """
    present = _present(p_values)
    if not present:
        return [None] * len(p_values)
    adjusted = stats.false_discovery_control(list(present.values()), method="bh")
    return _spread(dict(zip(present, adjusted, strict=True)), len(p_values))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted to control the chance of any false rejection, under any dependence.

    Missing values and errors as in `benjamini_hochberg`.

    References:
        Holm, 1979.
    """
    present = _present(p_values)
    largest = 0.0
    adjusted: dict[int, float] = {}
    for rank, place in enumerate(sorted(present, key=present.__getitem__)):
        largest = max(largest, min(1.0, (len(present) - rank) * present[place]))
        adjusted[place] = largest
    return _spread(adjusted, len(p_values))


def _present(p_values: Sequence[float | None]) -> dict[int, float]:
    present = {i: float(p) for i, p in enumerate(p_values) if p is not None and not np.isnan(p)}
    for place, p_value in present.items():
        if not 0 <= p_value <= 1:
            raise DataError(f"p_values[{place}]: expected a p-value in [0, 1], got {p_value}")
    return present


def _spread(adjusted: dict[int, float], length: int) -> list[float | None]:
    return [float(adjusted[i]) if i in adjusted else None for i in range(length)]
