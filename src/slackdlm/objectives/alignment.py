"""What does the model make of the slack? How much of it, and how undecided its place is."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slackdlm.lattice import band_posteriors
from slackdlm.objectives import checks
from slackdlm.objectives.fused_linear import lattice_columns
from slackdlm.objectives.vocabulary_pass import default_chunk_size


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
def alignment_of(
    hidden: Float[Tensor, "B L D"],
    head_weight: Float[Tensor, "V D"],
    canvas: Int[Tensor, "B L"],
    targets: Int[Tensor, "B S"],
    canvas_lengths: Int[Tensor, " B"],
    target_lengths: Int[Tensor, " B"],
    *,
    mask_id: int,
    slack_id: int,
    slack_row: Float[Tensor, " D"] | None = None,
) -> Alignment:
    """How much slack the model expects and how undecided the lattice leaves its place.

    Args:
        hidden: Last hidden states.
        head_weight: Output layer in the same dtype.
        canvas: The canvas as the model saw it.
        targets: Token ids, right-padded with anything.
        canvas_lengths: Content positions of each canvas; what lies behind them does not count.
        target_lengths: Tokens of each target.
        mask_id: Id that marks a masked position.
        slack_id: Id of ``<slack>``.
        slack_row: Takes the place of the output layer's row of ``<slack>``, in the same dtype.

    Returns:
        Sums per sample, float64; divide by ``num_masked`` for means.

    References:
        Ours. The posteriors are those whose difference from the softmax is slack-CTC's gradient.
    """
    num_samples, num_positions, _ = hidden.shape
    columns = lattice_columns(
        hidden,
        head_weight,
        head_weight[slack_id] if slack_row is None else slack_row,
        canvas,
        targets,
        canvas_lengths,
        target_lengths,
        num_slack=int(checks.largest_budget(canvas_lengths, target_lengths)),
        mask_id=mask_id,
        slack_id=slack_id,
    )
    posteriors = band_posteriors(*columns, canvas_lengths, target_lengths)
    masked = (canvas == mask_id) & checks.inside_lengths(canvas_lengths, num_positions)
    edges = torch.cat([posteriors.token, posteriors.slack[:, :, None]], dim=2).double()
    entropy = (torch.special.entr(edges.clamp(0, 1)).sum(2) * masked).sum(1)
    probability = torch.zeros(num_samples, dtype=torch.float64, device=hidden.device)
    rows = masked.flatten().nonzero()[:, 0]
    for chunk in rows.split(default_chunk_size(head_weight.shape[0], hidden.device)):
        inputs = hidden.flatten(0, 1)[chunk]
        logits = (inputs @ head_weight.T).double()
        if slack_row is not None:
            logits[:, slack_id] = (inputs @ slack_row).double()
        share = (logits[:, slack_id] - logits.logsumexp(1)).exp()
        probability.index_add_(0, chunk // num_positions, share)
    return Alignment(
        slack_probability=probability,
        entropy=torch.where(posteriors.log_likelihood == -torch.inf, torch.nan, entropy),
        num_masked=masked.sum(1).double(),
    )
