"""Which masked cells are decoded next? Scores per cell: the highest are committed first."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Remasking = Literal["low_confidence", "random"]


def low_confidence(logits: Float[Tensor, "M V"], tokens: Int[Tensor, " M"]) -> Float[Tensor, " M"]:
    """Probability the model gives each proposed token, before temperature and noise.

    Args:
        logits: Raw logits of the masked cells, float32.
        tokens: The token proposed for each cell.

    Returns:
        Probabilities in ``[0, 1]``.

    References:
        Nie et al., 2025 (LLaDA), ``generate.py``, ``remasking="low_confidence"``.
    """
    chosen = logits.gather(1, tokens[:, None])[:, 0]
    return torch.exp(chosen - torch.logsumexp(logits, dim=1))


def gumbel_argmax(
    logits: Float[Tensor, "M V"], uniforms: Float[Tensor, "M V"] | None, *, temperature: float
) -> Int[Tensor, " M"]:
    """A sample from ``softmax(logits / temperature)`` by the Gumbel-max trick; the argmax at temperature 0.

    Args:
        logits: Raw logits, float32; ``-inf`` for tokens that must not be chosen.
        uniforms: Uniform draws in ``[0, 1)``, float64; not needed at temperature 0.
        temperature: At least 0.

    References:
        Gumbel noise in float64 as in LLaDA's ``add_gumbel_noise`` (low precision biases it: Zheng et al.,
        arXiv 2409.02908); ``exp(l) / (-log u)^T`` there and ``l - T log(-log u)`` here order tokens alike.
    """
    if temperature == 0 or uniforms is None:
        return logits.argmax(dim=1)
    gumbel = -torch.log(-torch.log(uniforms.clamp_min(torch.finfo(torch.float64).tiny)))
    return (logits.double() + temperature * gumbel).argmax(dim=1)
