"""The merge-repeats lattice of Graves et al., 2006, visible positions clamped: for the ablation."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slackdlm.lattice.band import Batch
from slackdlm.lattice.posteriors import check_precision
from slackdlm.lattice.reference import safe_logaddexp


def graves_log_likelihood(log_probs: Float[Tensor, "B L V"], batch: Batch) -> Float[Tensor, " B"]:
    """Log-probability, in nats, that a filled canvas merges and collapses to the target.

    Args:
        log_probs: Log-probabilities of every token at every position, float32 or float64.
        batch: Canvases and targets; ``<slack>`` is the blank of this lattice.

    Returns:
        Log-likelihood per sample; ``-inf`` with zero gradient where no path exists, as for ``00``
        on two positions, which no canvas can spell under this map.

    Raises:
        ConfigError: If ``log_probs`` is half precision.

    References:
        Graves et al., 2006, section 4.1; the clamping of visible positions is ours.
    """
    check_precision(log_probs, name="log_probs")
    canvas_lengths, target_lengths = batch.canvas_lengths, batch.target_lengths.long()
    labels = interleave_slack(batch.targets, target_lengths, slack_id=batch.slack_id)  # [B, 2S+1]
    scores = log_probs.gather(2, labels[:, None, :].expand(-1, log_probs.shape[1], -1))
    impossible = scores.new_tensor(-torch.inf)
    if_visible = torch.where(
        labels[:, None, :] == batch.canvas[:, :, None], scores.new_zeros(()), impossible
    )
    scores = torch.where((batch.canvas == batch.mask_id)[:, :, None], scores, if_visible)
    may_skip = torch.zeros_like(labels, dtype=torch.bool)
    may_skip[:, 2:] = (labels[:, 2:] != batch.slack_id) & (labels[:, 2:] != labels[:, :-2])

    # state[:, s]: log-probability of all prefixes that end in label s. A path starts with the first
    # slack or token.
    starts = torch.arange(labels.shape[1], device=labels.device) < 2
    state = torch.where(starts, scores[:, 0], impossible)
    for i, emitted in enumerate(scores.unbind(1)[1:], start=1):
        step = _shift(state, 1)
        skip = torch.where(may_skip, _shift(state, 2), impossible)
        moved = safe_logaddexp(safe_logaddexp(state, step), skip) + emitted
        state = torch.where((i < canvas_lengths)[:, None], moved, state)
    ends_in_slack = state.gather(1, 2 * target_lengths[:, None])[:, 0]
    ends_in_token = state.gather(1, (2 * target_lengths - 1).clamp(min=0)[:, None])[:, 0]
    ends_in_token = torch.where(target_lengths > 0, ends_in_token, impossible)
    final = safe_logaddexp(ends_in_slack, ends_in_token)
    of_empty_canvas = torch.where(target_lengths > 0, impossible, scores.new_zeros(()))
    return torch.where(canvas_lengths > 0, final, of_empty_canvas)


def interleave_slack(
    targets: Int[Tensor, "B S"], target_lengths: Int[Tensor, " B"], *, slack_id: int
) -> Int[Tensor, "B 2*S+1"]:
    """Slack before, between and behind the target tokens; padding becomes slack."""
    num_samples, num_tokens = targets.shape
    labels = torch.full(
        (num_samples, 2 * num_tokens + 1), slack_id, dtype=torch.long, device=targets.device
    )
    real = torch.arange(num_tokens, device=targets.device) < target_lengths[:, None]
    labels[:, 1::2] = torch.where(real, targets.long(), slack_id)
    return labels


def _shift(state: Float[Tensor, "B N"], distance: int) -> Float[Tensor, "B N"]:
    """The state as seen ``distance`` labels further on; ``-inf`` enters at the front."""
    return torch.nn.functional.pad(state, (distance, 0), value=-torch.inf)[:, : state.shape[1]]
