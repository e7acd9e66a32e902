"""How likely is it that a filled canvas collapses to the target? The recursion in plain PyTorch.

Slow and exact: the yardstick of the kernels beside it, and what runs where they do not.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slackdlm.lattice.posteriors import Posteriors, check_precision


def safe_logaddexp(left: Float[Tensor, "*N"], right: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """``log(exp(left) + exp(right))``; two ``-inf`` add to ``-inf`` with gradient 0, never NaN."""
    both_impossible = (left == -torch.inf) & (right == -torch.inf)
    zero = left.new_zeros(())
    total = torch.logaddexp(
        torch.where(both_impossible, zero, left), torch.where(both_impossible, zero, right)
    )
    return torch.where(both_impossible, left.new_tensor(-torch.inf), total)


def band_log_likelihood(
    token_log_probs: Float[Tensor, "B L band"],
    slack_log_probs: Float[Tensor, "B L"],
    canvas_lengths: Int[Tensor, " B"],
    target_lengths: Int[Tensor, " B"],
) -> Float[Tensor, " B"]:
    """Log-probability, in nats, that independently filled positions collapse to the target.

    With "slack used so far" ``k`` as the state::

        a[i+1, k] = logaddexp(a[i, k] + token_log_probs[i, k], a[i, k-1] + slack_log_probs[i])

    Args:
        token_log_probs: Entry ``[i, k]`` is the log-probability of ``y[i - k]`` at position ``i``,
            ``-inf`` where there is no such token. Float32 or float64. Scores that are not
            normalised are fine too: the result is then the log-sum over paths of their summed
            scores.
        slack_log_probs: Log-probability of ``<slack>``.
        canvas_lengths: Positions of each sample, at most ``L``; later positions are not read.
        target_lengths: Tokens of each sample.

    Returns:
        Log-likelihood per sample. An empty canvas with an empty target has 0. ``-inf`` with zero
        gradient, never NaN, where no path exists, as for a target longer than its canvas.

    Raises:
        ConfigError: If the columns are half precision.

    References:
        The collapse map is that of arXiv 2601.22947 v2; the recursion is the RNA loss of Sak et
        al., 2017, with slack for blank.
    """
    check_precision(token_log_probs, name="columns")
    num_states = token_log_probs.shape[2]
    state = token_log_probs.new_full((token_log_probs.shape[0], num_states), -torch.inf)
    state[:, 0] = 0.0
    first = state.new_full((state.shape[0], 1), -torch.inf)
    # unbind, because the gradient of an index into [B, L, band] is a [B, L, band] of its own
    columns = zip(token_log_probs.unbind(1), slack_log_probs.unbind(1), strict=True)
    for i, (token, slack) in enumerate(columns):
        shifted = torch.cat((first, state[:, : num_states - 1]), dim=1)
        moved = safe_logaddexp(state + token, shifted + slack[:, None])
        state = torch.where((i < canvas_lengths)[:, None], moved, state)
    budget = canvas_lengths - target_lengths
    final = state.gather(1, budget.clamp(0, num_states - 1).long()[:, None])[:, 0]
    return torch.where(budget < 0, final.new_tensor(-torch.inf), final)


def posteriors(
    token_scores: Float[Tensor, "B L band"],
    slack_scores: Float[Tensor, "B L"],
    canvas_lengths: Int[Tensor, " B"],
    target_lengths: Int[Tensor, " B"],
    *,
    needs_posteriors: bool = True,
) -> Posteriors:
    """`slackdlm.lattice.band_posteriors`: the posteriors are the gradient of the log-likelihood."""
    with torch.enable_grad():
        token = token_scores.detach().requires_grad_()
        slack = slack_scores.detach().requires_grad_()
        log_likelihood = band_log_likelihood(token, slack, canvas_lengths, target_lengths)
        if not needs_posteriors or not log_likelihood.requires_grad:
            return Posteriors(
                log_likelihood.detach().double(), torch.zeros_like(token), torch.zeros_like(slack)
            )
        gradients = torch.autograd.grad(log_likelihood.sum(), (token, slack))
    return Posteriors(log_likelihood.detach().double(), *gradients)
