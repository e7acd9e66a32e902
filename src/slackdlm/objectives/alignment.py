"""What does the model make of the slack? How much of it, and how undecided its place is."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from slackdlm.lattice import band_posteriors
from slackdlm.objectives.through_head import Reading


class Alignment(NamedTuple):
    """Sums over the masked positions of each sample's canvas."""

    slack_probability: Float[Tensor, " B"]
    """Sum of the model's probability of ``<slack>``: the slack tokens it expects there."""
    entropy: Float[Tensor, " B"]
    """Sum of the entropy, in nats, of what stands at the position given the target: ``<slack>``, or
    its ``i - k``-th token. 0 where there is one alignment alone; NaN if there is none."""
    num_masked: Float[Tensor, " B"]
    """Masked positions."""


@torch.no_grad()
def alignment_of(reading: Reading) -> Alignment:
    """How much slack the model expects and how undecided the lattice leaves its place.

    Returns:
        Sums per sample, float64; divide by ``num_masked`` for means.

    References:
        Ours. The posteriors are those whose difference from the softmax is slack-CTC's gradient.
    """
    masked = reading.problem.masked
    posteriors = band_posteriors(reading.columns)
    edges = torch.cat([posteriors.token, posteriors.slack[:, :, None]], dim=2).double()
    entropy = (torch.special.entr(edges.clamp(0, 1)).sum(2) * masked).sum(1)
    return Alignment(
        slack_probability=(reading.slack.double().exp() * masked).sum(1),
        entropy=torch.where(posteriors.log_likelihood == -torch.inf, torch.nan, entropy),
        num_masked=masked.sum(1).double(),
    )
