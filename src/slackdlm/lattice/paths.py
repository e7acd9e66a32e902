"""Which alignment of the target would the model choose? One drawn from its posterior, or the best.

A path fills every position with the next target token or with ``<slack>``. The posterior over paths
is a Markov chain in "slack used so far", so a path is drawn from left to right, exactly.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slackdlm.lattice import band_posteriors
from slackdlm.lattice.band import Columns


class Paths(NamedTuple):
    """One alignment per sample."""

    is_slack: Bool[Tensor, "B L"]
    """True where ``<slack>`` stands, False where a token does and behind the canvas."""
    exists: Bool[Tensor, " B"]
    """False where no path leads to the target; ``is_slack`` is then False everywhere."""


def sample_path(columns: Columns, *, uniforms: Float[Tensor, "B L"]) -> Paths:
    """Draw an alignment with the probability that the columns give it, given the target.

    With ``m[i, k]`` the posterior probability that ``k`` slack tokens were used before position
    ``i``, and ``p[i, k]`` that of the token edge there::

        P[slack at i | k used] = (m[i, k] - p[i, k]) / m[i, k]
        m[i+1, k] = p[i, k] + m[i, k-1] - p[i, k-1]

    Args:
        columns: Scores of the edges; computed in float64, whatever their dtype.
        uniforms: Independent, in [0, 1); one per position decides whether slack stands there.

    Returns:
        Paths; the same uniforms and scores give the same paths on every device, up to rounding.

    References:
        Ours; forward-filtering sampling of hidden Markov models, turned around.
    """
    canvas_lengths, target_lengths = columns.canvas_lengths, columns.target_lengths
    posteriors = band_posteriors(columns.in_float64())
    exists = posteriors.log_likelihood.isfinite()
    budget = (canvas_lengths - target_lengths).clamp(min=0)
    num_samples, _, num_states = posteriors.token.shape
    mass = posteriors.token.new_zeros(num_samples, num_states)
    mass[:, 0] = 1.0
    used = torch.zeros_like(budget)
    decisions: list[Tensor] = []
    for i, token in enumerate(posteriors.token.unbind(1)):
        by_slack = (mass - token).clamp(min=0.0)
        # What rounding leaves of an impossible edge must not be taken: both ends of the walk are fixed.
        is_out = used >= budget
        is_due = canvas_lengths - i <= budget - used
        here = used[:, None]
        is_drawn = uniforms[:, i] * mass.gather(1, here)[:, 0] < by_slack.gather(1, here)[:, 0]
        is_slack = (is_drawn | is_due) & ~is_out & (i < canvas_lengths) & exists
        decisions.append(is_slack)
        used = used + is_slack.to(used.dtype)
        mass = token + torch.nn.functional.pad(by_slack[:, :-1], (1, 0))
    return Paths(_stack(decisions, columns.slack), exists)


def best_path(columns: Columns) -> Paths:
    """The alignment with the highest score; of two equal ones that with slack further right.

    Computed in float64, whatever the dtype of the columns.

    References:
        Viterbi, 1967.
    """
    tokens, slacks, canvas_lengths, target_lengths = columns.in_float64()
    num_samples, _, num_states = tokens.shape
    state = tokens.new_full((num_samples, num_states), -torch.inf)
    state[:, 0] = 0.0
    came_by_slack: list[Tensor] = []
    positions = zip(tokens.unbind(1), slacks.unbind(1), strict=True)
    for i, (token, slack) in enumerate(positions):
        by_token = state + token
        by_slack = torch.nn.functional.pad(state[:, :-1], (1, 0), value=-torch.inf) + slack[:, None]
        came_by_slack.append(by_slack >= by_token)
        is_inside = (i < canvas_lengths)[:, None]
        state = torch.where(is_inside, torch.maximum(by_token, by_slack), state)
    budget = canvas_lengths - target_lengths
    used = budget.clamp(0, num_states - 1)
    exists = (budget >= 0) & state.gather(1, used[:, None])[:, 0].isfinite()
    decisions: list[Tensor] = []
    for i in reversed(range(len(came_by_slack))):
        is_slack = came_by_slack[i].gather(1, used[:, None])[:, 0] & (i < canvas_lengths) & exists
        decisions.append(is_slack)
        used = used - is_slack.to(used.dtype)
    return Paths(_stack(decisions[::-1], columns.slack), exists)


def _stack(decisions: list[Tensor], slack_scores: Tensor) -> Bool[Tensor, "B L"]:
    """Decisions by position as one tensor; a canvas without positions has none."""
    if not decisions:
        return torch.zeros_like(slack_scores, dtype=torch.bool)
    return torch.stack(decisions, dim=1)
