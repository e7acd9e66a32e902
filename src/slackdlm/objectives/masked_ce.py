"""How surprised is the model by the clean canvas, place by place? The loss of today's MDLMs."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from slackdlm.objectives import checks


def masked_ce_loss(
    logits: Float[Tensor, "B L V"],
    canvas: Int[Tensor, "B L"],
    clean: Int[Tensor, "B L"],
    canvas_lengths: Int[Tensor, " B"],
    *,
    mask_id: int,
) -> Float[Tensor, " B"]:
    """Cross-entropy summed over the masked positions of each canvas, in nats, unweighted.

    Args:
        logits: Unnormalised scores of any float dtype; half precision is raised to float32 inside.
        canvas: The canvas as the model saw it, ``mask_id`` where masked.
        clean: The canvas before noise. Read at masked positions only; it may hold slack.
        canvas_lengths: Content positions; what lies behind is ignored.
        mask_id: Id that marks a masked position.

    Returns:
        One loss per sample; 0 where nothing is masked.

    Raises:
        ConfigError: If a shape, a dtype or an id is wrong.

    References:
        Nie et al., 2025 (LLaDA), equation 5 without its 1/p weight.
    """
    where = "masked_ce_loss"
    checks.check_floating(where, "logits", logits, "B L V")
    num_samples, num_positions, vocab_size = logits.shape
    checks.check_integers(where, "canvas", canvas, (num_samples, num_positions))
    checks.check_integers(where, "clean", clean, (num_samples, num_positions))
    checks.check_integers(where, "canvas_lengths", canvas_lengths, (num_samples,))
    checks.check_mask_id(where, mask_id)
    inside = checks.inside_lengths(canvas_lengths, num_positions)
    supervised = (canvas == mask_id) & inside
    faults = checks.canvas_faults(canvas, canvas_lengths, mask_id, vocab_size)
    faults |= checks.clean_faults(clean, supervised, mask_id, vocab_size)
    checks.raise_first_fault(where, faults, canvas_lengths.new_zeros(()))
    return position_ce(logits, clean, supervised).sum(1)


def position_ce(
    logits: Float[Tensor, "B L V"], clean: Int[Tensor, "B L"], supervised: Tensor
) -> Float[Tensor, "B L"]:
    """Cross-entropy of each supervised position, in nats; 0 elsewhere, whatever is there."""
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    losses = F.cross_entropy(
        logits[supervised].to(dtype), clean[supervised].long(), reduction="none"
    )
    return losses.new_zeros(clean.shape).masked_scatter(supervised, losses)
