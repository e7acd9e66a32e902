"""Which masked cells are decoded next, and how many? A score per cell, highest first, and a number per row.

Every score takes ``(logits [M, V], tokens [M])`` of the masked cells and looks at the model's own distribution, before
temperature and noise. Every count takes ``(scores [B, N], due [B], bound)``: a row's scores in descending order,
``-inf`` where it has no more masked cells, and the cells due by the schedule.

Axis letters: ``B`` rows, ``M`` masked cells, ``N`` most masked cells of a row, ``V`` vocabulary.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def low_confidence(logits: Float[Tensor, "M V"], tokens: Int[Tensor, " M"]) -> Float[Tensor, " M"]:
    """Probability the model gives each proposed token, in ``[0, 1]``.

    References:
        Nie et al., 2025 (LLaDA), ``generate.py``, ``remasking="low_confidence"``.
    """
    return torch.softmax(logits, dim=1).gather(1, tokens[:, None])[:, 0]


def entropy(logits: Float[Tensor, "M V"], tokens: Int[Tensor, " M"]) -> Float[Tensor, " M"]:
    """Minus the entropy of each cell's distribution, in nats: in ``[-log V, 0]``.

    References:
        Ye et al., 2025 (Dream), ``alg="entropy"``.
    """
    probs = torch.softmax(logits, dim=1)
    return -torch.special.entr(probs).sum(dim=1)


def margin(logits: Float[Tensor, "M V"], tokens: Int[Tensor, " M"]) -> Float[Tensor, " M"]:
    """Probability of each cell's likeliest token minus that of the second likeliest, in ``[0, 1]``.

    References:
        Kim et al., 2025 (top probability margin); Dream, ``alg="topk_margin"``.
    """
    best, second = torch.softmax(logits, dim=1).topk(2, dim=1).values.unbind(1)
    return best - second


def scheduled(
    scores: Float[Tensor, "B N"], due: Int[Tensor, " B"], bound: float
) -> Int[Tensor, " B"]:
    """The cells due, so that the steps suffice: LLaDA's ``get_num_transfer_tokens``."""
    return due


def threshold(
    scores: Float[Tensor, "B N"], due: Int[Tensor, " B"], bound: float
) -> Int[Tensor, " B"]:
    """All cells with a confidence of at least the bound, and always one where there is one.

    References:
        Wu et al., 2025 (Fast-dLLM), ``get_transfer_index`` with a threshold.
    """
    return _always_one(scores, (scores >= bound).sum(dim=1))


def entropy_bound(
    scores: Float[Tensor, "B N"], due: Int[Tensor, " B"], bound: float
) -> Int[Tensor, " B"]:
    """The surest cells while the entropies of all but the last sum to at most the bound; always one.

    That sum bounds how far the product of their distributions is from their joint one, in nats.

    References:
        Ben-Hamu et al., 2025 (EB-Sampler): accept while ``cumsum(H) - H_k <= bound``, ``H`` ascending.
    """
    before = torch.cumsum(-scores, dim=1)[:, :-1]
    within = torch.cat([torch.zeros_like(scores[:, :1]), before], dim=1) <= bound
    return _always_one(scores, (within & (scores > -torch.inf)).sum(dim=1))


def _always_one(scores: Float[Tensor, "B N"], count: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    return torch.maximum(count, (scores[:, 0] > -torch.inf).long())


def spaced(
    scores: Float[Tensor, "B L"], num_cells: int, *, spacing: int
) -> Int[Tensor, "B num_cells"]:
    """Positions to decode, highest score first, those nearer than ``spacing`` to one before them behind all others.

    Cells decoded in one step are drawn independently of each other, which costs least where they tell least about each
    other: far apart. With a spacing of 1 the order of the scores alone.

    Args:
        scores: Of every canvas position, ``-inf`` where nothing is masked; those come last. Equal scores are taken from
            the left.
        num_cells: How many positions, at most ``L``.
        spacing: Least distance in positions, at least 1.

    References:
        Luxembourg, Permuter and Nachmani, 2025 (arXiv 2506.19037) decode cells far apart on a fixed grid that no
        confidence enters; keeping the order of the scores is ours.
    """
    length = scores.shape[1]
    places = torch.arange(length, device=scores.device)
    order = scores.argsort(dim=1, descending=True, stable=True)
    # Distinct keys: 1 to L by rank, and L more while no cell taken is near; 0 once taken.
    keys = length - torch.empty_like(order).scatter_(1, order, places.expand_as(order))
    keys += length * (scores > -torch.inf)
    taken: list[Tensor] = []
    for _ in range(num_cells):
        best = keys.argmax(dim=1, keepdim=True)
        near = (places - best).abs() < spacing
        keys = torch.where(near & (keys > length), keys - length, keys).scatter(1, best, 0)
        taken.append(best)
    return torch.cat(taken, dim=1)


class Strategy(NamedTuple):
    """How masked cells are ordered, and how many are decoded in a step."""

    score: Callable[[Tensor, Tensor], Tensor] | None
    """``None``: a uniform draw per cell, LLaDA's random remasking."""
    number: Callable[[Tensor, Tensor, float], Tensor]


STRATEGIES: dict[str, Strategy] = {
    "low_confidence": Strategy(low_confidence, scheduled),
    "random": Strategy(None, scheduled),
    "entropy": Strategy(entropy, scheduled),
    "margin": Strategy(margin, scheduled),
    "threshold": Strategy(low_confidence, threshold),
    "entropy_bound": Strategy(entropy, entropy_bound),
}
"""By the name that ``sampler.remasking`` gives it."""


_REACH = 4.0
"""``c`` below: 1.8 % of the tokens have noise above it."""


def gumbel_argmax(
    logits: Float[Tensor, "M V"], uniforms: Float[Tensor, "M V"] | None, *, temperature: float
) -> Int[Tensor, " M"]:
    """A sample from ``softmax(logits / temperature)`` by the Gumbel-max trick; the argmax at temperature 0.

    Args:
        logits: Raw logits, float32; ``-inf`` for tokens that must not be chosen.
        uniforms: Uniform draws in ``[0, 1)``, float64, written over; not needed at temperature 0.
        temperature: At least 0.

    References:
        Gumbel noise in float64 as in LLaDA's ``add_gumbel_noise`` (low precision biases it: Zheng et al.,
        arXiv 2409.02908); ``exp(l) / (-log u)^T`` there and ``l - T log(-log u)`` here order tokens alike.
    """
    if temperature == 0 or uniforms is None:
        return logits.argmax(dim=1)
    if logits.device.type == "cpu":
        return _argmax_of_contenders(logits, uniforms, temperature)
    # In place: at a large vocabulary fresh pages cost as much as the logarithms.
    return _minus_gumbel(uniforms).mul_(-temperature).add_(logits).argmax(dim=1)


def _minus_gumbel(uniforms: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return uniforms.clamp_min_(torch.finfo(torch.float64).tiny).log_().neg_().log_()


def _argmax_of_contenders(
    logits: Float[Tensor, "M V"], uniforms: Float[Tensor, "M V"], temperature: float
) -> Int[Tensor, " M"]:
    """The same argmax with logarithms of few tokens: ours; on a GPU finding them would wait for the device.

    Let ``s`` be the noisy score of the likeliest token. Another ``v`` wins only if ``T g_v >= s - l_v``. With
    ``l_v < s - T c`` that needs ``g_v > c``, hence ``u_v > exp(-exp(-c)) >= 1 - exp(-c)``. All others lose.
    """
    likeliest = logits.argmax(dim=1, keepdim=True)
    score = logits.gather(1, likeliest) - temperature * _minus_gumbel(uniforms.gather(1, likeliest))
    lowest = score - temperature * _REACH
    lowest -= 1e-5 * (1 + score.abs() + lowest.abs())  # far more than float32 rounds
    near = uniforms >= 1 - 1.001 * math.exp(-_REACH)
    near |= logits >= lowest.float()
    places = torch.from_numpy(np.flatnonzero(near.numpy()))  # a tenth of the time of nonzero
    if 4 * len(places) > near.numel():
        return _minus_gumbel(uniforms).mul_(-temperature).add_(logits).argmax(dim=1)
    rows, tokens = places // logits.shape[1], places % logits.shape[1]
    scores = logits[rows, tokens] - temperature * _minus_gumbel(uniforms[rows, tokens])
    highest = torch.full((len(logits),), -torch.inf, dtype=scores.dtype)
    highest.scatter_reduce_(0, rows, scores, "amax")
    wins = scores == highest[rows]
    # A row of NaN has no contender and keeps its likeliest, as argmax does.
    return likeliest[:, 0].scatter_reduce(0, rows[wins], tokens[wins], "amin", include_self=False)
