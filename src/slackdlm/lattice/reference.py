"""How likely is it that a filled canvas collapses to the target? The recursion in plain PyTorch.

Slow and exact: the yardstick of the kernels beside it, and what runs where they do not.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from slackdlm.lattice.band import Columns
from slackdlm.lattice.posteriors import Posteriors, check_precision


def safe_logaddexp(left: Float[Tensor, "*N"], right: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """``log(exp(left) + exp(right))``; two ``-inf`` add to ``-inf`` with gradient 0, never NaN."""
    both_impossible = (left == -torch.inf) & (right == -torch.inf)
    zero = left.new_zeros(())
    total = torch.logaddexp(
        torch.where(both_impossible, zero, left), torch.where(both_impossible, zero, right)
    )
    return torch.where(both_impossible, left.new_tensor(-torch.inf), total)


def band_log_likelihood(columns: Columns) -> Float[Tensor, " B"]:
    """Log-probability, in nats, that independently filled positions collapse to the target.

    With "slack used so far" ``k`` as the state::

        a[i+1, k] = logaddexp(a[i, k] + token[i, k], a[i, k-1] + slack[i])

    Returns:
        Log-likelihood per sample. An empty canvas with an empty target has 0. ``-inf`` with zero
        gradient, never NaN, where no path exists, as for a target longer than its canvas.

    Raises:
        ConfigError: If the columns are half precision.

    References:
        The collapse map is that of arXiv 2601.22947 v2; the recursion is the RNA loss of Sak et
        al., 2017, with slack for blank.
    """
    tokens, slacks, canvas_lengths, target_lengths = columns
    check_precision(tokens, name="columns")
    num_states = tokens.shape[2]
    state = tokens.new_full((tokens.shape[0], num_states), -torch.inf)
    state[:, 0] = 0.0
    first = state.new_full((state.shape[0], 1), -torch.inf)
    # unbind, because the gradient of an index into [B, L, band] is a [B, L, band] of its own
    positions = zip(tokens.unbind(1), slacks.unbind(1), strict=True)
    for i, (token, slack) in enumerate(positions):
        shifted = torch.cat((first, state[:, : num_states - 1]), dim=1)
        moved = safe_logaddexp(state + token, shifted + slack[:, None])
        state = torch.where((i < canvas_lengths)[:, None], moved, state)
    budget = canvas_lengths - target_lengths
    final = state.gather(1, budget.clamp(0, num_states - 1).long()[:, None])[:, 0]
    return torch.where(budget < 0, final.new_tensor(-torch.inf), final)


def posteriors(columns: Columns, *, needs_posteriors: bool = True) -> Posteriors:
    """`slackdlm.lattice.band_posteriors`: the posteriors are the gradient of the log-likelihood."""
    with torch.enable_grad():
        token = columns.token.detach().requires_grad_()
        slack = columns.slack.detach().requires_grad_()
        log_likelihood = band_log_likelihood(columns._replace(token=token, slack=slack))
        if not needs_posteriors or not log_likelihood.requires_grad:
            return Posteriors(
                log_likelihood.detach().double(), torch.zeros_like(token), torch.zeros_like(slack)
            )
        gradients = torch.autograd.grad(log_likelihood.sum(), (token, slack))
    return Posteriors(log_likelihood.detach().double(), *gradients)
