"""Tests of "no difference" whose unit is the question."""

import numpy as np
from jaxtyping import Float
from scipy import stats

from slackdlm.errors import DataError
from slackdlm.statistics.bootstrap import CHUNK, check_resamples, scored_values


def sign_flip_test(
    differences: Float[np.ndarray, " Q"], *, rng: np.random.Generator, num_resamples: int = 10_000
) -> float | None:
    """The two-sided permutation p of "the differences are symmetric about zero".

    Each question's difference keeps its size and may have had either sign. Exact where the sign
    patterns number at most ``num_resamples``, else ``(b + 1) / (m + 1)`` over that many random
    ones. Zeros are kept: either sign leaves them zero, so they change neither the sum nor the p and
    need no enumeration.

    Plain numpy: `scipy.stats.permutation_test` gives the same p but moves whole samples about, ten
    to twenty times slower, and a study runs hundreds of these.

    Returns:
        p in ``(0, 1]``; 1 if all differences are zero; None if none was scored.
    """
    check_resamples(num_resamples, at_least=1)
    scored = scored_values(differences, where="sign_flip_test")
    if scored.size == 0:
        return None
    sizes = np.sort(np.abs(scored[scored != 0]))
    if sizes.size == 0:
        return 1.0
    # Sums that differ by rounding alone are ties, and ties count.
    threshold = abs(float(np.sort(scored).sum())) - 1e-9 * float(sizes.sum())
    exact = sizes.size < 63 and 2**sizes.size <= num_resamples
    num_patterns = 2**sizes.size if exact else num_resamples
    num_extreme = 0
    for start in range(0, num_patterns, max(1, CHUNK // sizes.size)):
        stop = min(num_patterns, start + max(1, CHUNK // sizes.size))
        if exact:
            flips = (np.arange(start, stop)[:, None] >> np.arange(sizes.size)) & 1
        else:
            flips = rng.integers(0, 2, size=(stop - start, sizes.size), dtype=np.int8)
        sums = (2.0 * flips - 1.0) @ sizes
        num_extreme += int((np.abs(sums) >= threshold).sum())
    return num_extreme / num_patterns if exact else (num_extreme + 1) / (num_patterns + 1)


def exact_mcnemar(a: Float[np.ndarray, " Q"], b: Float[np.ndarray, " Q"]) -> float | None:
    """The two-sided p of McNemar's exact test on paired 0/1 scores: binomial on the questions where they differ.

    Returns:
        p in ``(0, 1]``; 1 if they never differ; None if no question is scored in both.

    Raises:
        DataError: If a score is neither 0, 1 nor missing.
    """
    scored = ~np.isnan(a) & ~np.isnan(b)
    first, second = a[scored], b[scored]
    if not np.isin([first, second], (0.0, 1.0)).all():
        raise DataError(
            "exact_mcnemar: expected scores of 0, 1 or NaN; use sign_flip_test for others"
        )
    if first.size == 0:
        return None
    num_differing = int((first != second).sum())
    if num_differing == 0:
        return 1.0
    return float(stats.binomtest(int((first > second).sum()), num_differing).pvalue)
