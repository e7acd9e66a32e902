"""The lattice on the CPU: forward and backward recursion compiled by numba, float64 inside.

States are log-probabilities in float64 and ``-inf`` is log 0, as in the reference. Forward keeps
one number per cell, the share of its probability that came by a slack move; backward hands
posterior mass back along these shares, so that it needs no exponential and every position's
posteriors sum to 1.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, no_type_check

import numba
import numpy as np
import torch
from numba.core.caching import FunctionCache
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

from slackdlm.lattice.band import Columns
from slackdlm.lattice.posteriors import Posteriors

# Below e**-40 the smaller of two terms is lost in float64 anyway.
_NEGLIGIBLE = 40.0
# exp(-z) on [0, 40/64] and atanh(s) / s as a function of s*s on [0, 1/9]. Loops over the vendor's
# exp and log1p stay scalar; polynomials vectorise, and with these degrees both are good to 1e-13.
_EXP = tuple(
    Chebyshev.interpolate(lambda z: np.exp(-z), 9, domain=[0, 40 / 64])
    .convert(kind=Polynomial)
    .coef.tolist()
)
_ATANH = tuple(
    Chebyshev.interpolate(lambda q: np.arctanh(np.sqrt(q)) / np.sqrt(q), 9, domain=[1e-30, 1 / 9])
    .convert(kind=Polynomial)
    .coef.tolist()
)
_WORTH_A_THREAD = 50_000  # cells; below, starting threads costs more than it saves


class _Cache(FunctionCache):
    """numba's cache, but what cannot be read or written there is compiled again: that takes seconds."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # damaged files make pickle raise whatever their bytes lead to
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


def _compiled(kernel: Callable[..., Any]) -> Any:
    """Kernels carry @no_type_check: numba must see them bare, not wrapped by a shape check."""
    fast = {"contract", "reassoc", "nsz"}  # infinities and NaN keep their meaning
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy", fastmath=fast)(kernel)
    with suppress(RuntimeError):  # neither the package nor the user's home can be written
        dispatcher._cache = _Cache(kernel)
    return dispatcher


def posteriors(columns: Columns, *, needs_posteriors: bool = True) -> Posteriors:
    """`slackdlm.lattice.band_posteriors` of tensors on the CPU, samples in parallel."""
    token = columns.token.detach().contiguous().numpy()
    slack = columns.slack.detach().contiguous().numpy()
    sizes = columns.canvas_lengths.tolist(), columns.target_lengths.tolist()
    lengths = list(zip(*sizes, strict=True))
    log_likelihood = np.full(len(lengths), -np.inf)
    token_posterior = np.zeros_like(token)
    slack_posterior = np.zeros_like(slack)

    def run(b: int) -> None:
        canvas_length, target_length = lengths[b]
        if canvas_length >= target_length:
            log_likelihood[b] = _run_sample(
                token[b],
                slack[b],
                canvas_length,
                target_length,
                needs_posteriors,
                token_posterior[b],
                slack_posterior[b],
            )

    num_threads = min(len(lengths), torch.get_num_threads(), 1 + token.size // _WORTH_A_THREAD)
    if num_threads > 1:
        with ThreadPoolExecutor(num_threads) as pool:
            list(pool.map(run, range(len(lengths))))
    else:
        for b in range(len(lengths)):
            run(b)
    return Posteriors(
        torch.from_numpy(log_likelihood),
        torch.from_numpy(token_posterior),
        torch.from_numpy(slack_posterior),
    )


@_compiled
@no_type_check
def _run_sample(
    token: NDArray[np.floating],  # [L, band]
    slack: NDArray[np.floating],  # [L]
    canvas_length: int,
    target_length: int,
    needs_posteriors: bool,
    token_posterior: NDArray[np.floating],  # [L, band], zero; written
    slack_posterior: NDArray[np.floating],  # [L], zero; written
) -> float:
    """Log-likelihood of one sample whose slack budget is not negative."""
    budget = canvas_length - target_length
    width = min(budget, target_length) + 1
    num_rows = canvas_length if needs_posteriors else 1
    shares = np.empty((max(num_rows, 1), width), np.float64)
    log_likelihood = _forward(token, slack, canvas_length, target_length, shares)
    if needs_posteriors:
        if np.isnan(log_likelihood):
            token_posterior[:] = np.nan
            slack_posterior[:] = np.nan
        elif log_likelihood > -np.inf:
            _backward(shares, canvas_length, target_length, token_posterior, slack_posterior)
    return log_likelihood


@_compiled
@no_type_check
def _forward(
    token: NDArray[np.floating],
    slack: NDArray[np.floating],
    canvas_length: int,
    target_length: int,
    shares: NDArray[np.float64],
) -> float:
    """Fills ``shares`` and returns the log-likelihood; ``state[k + 1]`` belongs to ``k`` slack used."""
    budget = canvas_length - target_length
    state = np.full(budget + 2, -np.inf)
    after = np.full(budget + 2, -np.inf)
    state[1] = 0.0
    num_nan = 0
    for i in range(canvas_length):
        first = max(0, i + 1 - target_length)  # less slack than this cannot have been used
        end = min(i + 1, budget) + 1
        num_nan += _advance(
            state[first + 1 : end + 1],
            state[first:end],
            token[i, first:end],
            slack[i],
            after[first + 1 : end + 1],
            shares[min(i, len(shares) - 1), : end - first],
        )
        state, after = after, state
    return np.nan if num_nan > 0 else state[budget + 1]


@_compiled
@no_type_check
def _advance(
    by_token: NDArray[np.float64],
    by_slack: NDArray[np.float64],
    token: NDArray[np.floating],
    slack: float,
    after: NDArray[np.float64],
    shares: NDArray[np.float64],
) -> int:
    """One position: ``after = logaddexp(by_token + token, by_slack + slack)``; counts NaN scores."""
    num_nan = 0
    slack = np.float64(slack)
    if np.isnan(slack):
        num_nan = 1
    for j in range(after.size):
        left = by_token[j] + token[j]
        right = by_slack[j] + slack
        gap = abs(left - right)  # NaN if both are -inf, which is not below the bound either
        is_shared = gap < _NEGLIGIBLE
        ratio = _polynomial(_EXP, (gap if is_shared else 0.0) * (1 / 64))
        for _ in range(6):
            ratio *= ratio  # exp(-gap) = exp(-gap / 64) ** 64
        ratio = ratio if is_shared else 0.0
        inverse = 1.0 / ((1.0 + ratio) * (2.0 + ratio))
        smaller = ratio * (2.0 + ratio) * inverse  # share of the smaller: ratio / (1 + ratio)
        s = ratio * (1.0 + ratio) * inverse  # log1p(ratio) = 2 atanh(ratio / (2 + ratio))
        after[j] = max(left, right) + 2.0 * s * _polynomial(_ATANH, s * s)
        shares[j] = smaller if left > right else 1.0 - smaller
        num_nan += token[j] != token[j]
    return num_nan


@_compiled
@no_type_check
def _polynomial(c: tuple[float, ...], x: float) -> float:
    """Horner's rule, written out for the vectoriser."""
    high = (((c[9] * x + c[8]) * x + c[7]) * x + c[6]) * x + c[5]
    return ((((high * x + c[4]) * x + c[3]) * x + c[2]) * x + c[1]) * x + c[0]


@_compiled
@no_type_check
def _backward(
    shares: NDArray[np.float64],
    canvas_length: int,
    target_length: int,
    token_posterior: NDArray[np.floating],
    slack_posterior: NDArray[np.floating],
) -> None:
    """Hands the mass 1 of the final state back; ``mass[k]`` is the posterior of having used ``k``."""
    budget = canvas_length - target_length
    mass = np.zeros(budget + 2)
    by_slack = np.zeros(budget + 2)
    mass[budget] = 1.0
    for i in range(canvas_length - 1, -1, -1):
        first = max(0, i + 1 - target_length)
        end = min(i + 1, budget) + 1
        slack_posterior[i] = _split(
            mass[first:end],
            shares[i, : end - first],
            by_slack[first:end],
            token_posterior[i, first:end],
        )
        by_slack[end] = 0.0
        for k in range(first, end):
            mass[k] += by_slack[k + 1]
        if first > 0:
            mass[first - 1] = by_slack[first]


@_compiled
@no_type_check
def _split(
    mass: NDArray[np.float64],
    shares: NDArray[np.float64],
    by_slack: NDArray[np.float64],
    token_posterior: NDArray[np.floating],
) -> float:
    """Splits the mass of one position into slack and token moves; returns the slack posterior."""
    total = 0.0
    for j in range(mass.size):
        moved = mass[j] * shares[j]
        by_slack[j] = moved
        mass[j] -= moved
        token_posterior[j] = mass[j]
        total += moved
    return total
