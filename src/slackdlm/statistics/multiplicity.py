"""p-values of a whole family of tests."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from slackdlm.errors import DataError


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted to control the false discovery rate over one family of tests.

    None and NaN mean missing: they stay missing (None) and do not count in the family. A p-value
    outside ``[0, 1]`` raises DataError.

    References:
        Benjamini and Hochberg, 1995; `scipy.stats.false_discovery_control`.
    """
    return _adjusted(p_values, stats.false_discovery_control)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted to control the chance of any false rejection, under any dependence.

    Missing values and errors as in `benjamini_hochberg`.

    References:
        Holm, 1979.
    """
    return _adjusted(p_values, _stepped_down)


def _stepped_down(p_values: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    order = np.argsort(p_values)
    num_left = np.arange(p_values.size, 0, -1)  # hypotheses not yet rejected
    raised = np.maximum.accumulate(np.minimum(num_left * p_values[order], 1.0))
    return raised[np.argsort(order)]


def _adjusted(
    p_values: Sequence[float | None],
    adjust: Callable[[Float[np.ndarray, " T"]], Float[np.ndarray, " T"]],
) -> list[float | None]:
    """The adjustment of the p-values that are there."""
    values = np.array([np.nan if p is None else p for p in p_values], dtype=np.float64)
    for i, p_value in enumerate(values):
        if not np.isnan(p_value) and not 0 <= p_value <= 1:
            raise DataError(f"p_values[{i}]: expected a p-value in [0, 1], got {p_value}")
    present = ~np.isnan(values)
    if present.any():
        values[present] = adjust(values[present])
    return [None if np.isnan(value) else float(value) for value in values]
