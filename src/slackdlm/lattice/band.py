"""Which scores does the lattice need? A band of target columns and slack, visible places clamped.

Axis letters: ``B`` batch, ``L`` canvas positions, ``S`` target tokens, ``K`` slack budget, ``V``
vocabulary. Position ``i`` reached with ``k`` slack tokens behind it can only emit ``y[i - k]`` or
``<slack>``, so ``K + 1`` target columns per position are all a lattice ever reads.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Band(NamedTuple):
    """The target token of every lattice edge."""

    ids: Int[Tensor, "B L band"]
    """Entry ``[i, k]`` is ``y[i - k]``; 0 where there is no such token."""
    inside: Bool[Tensor, "B L band"]
    """True where ``y[i - k]`` exists and ``i`` lies on the canvas."""


class Columns(NamedTuple):
    """The scores of every lattice edge, in nats; ``-inf`` where the edge does not exist."""

    token: Float[Tensor, "B L band"]
    """Entry ``[i, k]``: log-probability of ``y[i - k]`` at position ``i``."""
    slack: Float[Tensor, "B L"]
    """Log-probability of ``<slack>`` at each position."""


def target_band(
    targets: Int[Tensor, "B S"],
    canvas_lengths: Int[Tensor, " B"],
    target_lengths: Int[Tensor, " B"],
    *,
    num_positions: int,
    num_slack: int,
) -> Band:
    """The target token that each position would emit after each amount of slack.

    Args:
        targets: Token ids, right-padded with anything.
        canvas_lengths: Content positions of each canvas, at most ``num_positions``.
        target_lengths: Tokens of each target, at most ``S``.
        num_positions: ``L``.
        num_slack: ``K``, the largest slack budget in the batch; the band is ``K + 1`` wide.

    Returns:
        Ids and which of them exist. A sample with a smaller budget simply never reaches its last
        columns.
    """
    positions = torch.arange(num_positions, device=targets.device)
    slack_used = torch.arange(num_slack + 1, device=targets.device)
    token_index = positions[:, None] - slack_used  # [L, K+1]
    inside = (
        (token_index >= 0)
        & (token_index < target_lengths[:, None, None])
        & (positions[:, None] < canvas_lengths[:, None, None])
    )
    if targets.shape[1] == 0:
        return Band(ids=torch.zeros_like(inside, dtype=torch.long), inside=inside)
    ids = targets.long()[:, token_index.clamp(0, targets.shape[1] - 1)]
    return Band(ids=ids.masked_fill(~inside, 0), inside=inside)


def clamp_columns(
    token_scores: Float[Tensor, "B L band"],
    slack_scores: Float[Tensor, "B L"],
    band: Band,
    canvas: Int[Tensor, "B L"],
    *,
    mask_id: int,
    slack_id: int,
) -> Columns:
    """Lattice columns in which a visible position can only emit what is visible there.

    Args:
        token_scores: Score of ``band.ids`` at each position; values outside the band do not matter.
        slack_scores: Score of ``<slack>`` at each position.
        band: Which token sits on which edge.
        canvas: The canvas as the model saw it.
        mask_id: Id that marks a masked position.
        slack_id: Id of ``<slack>``.

    Returns:
        At masked positions the scores; at visible ones 0 for the visible token and ``-inf`` for all
        others, so that no gradient reaches the scores there; ``-inf`` outside the band.
    """
    masked = canvas == mask_id
    impossible = token_scores.new_full((), -torch.inf)
    certain = token_scores.new_zeros(())
    token_if_visible = torch.where(band.ids == canvas[:, :, None], certain, impossible)
    token = torch.where(masked[:, :, None], token_scores, token_if_visible)
    slack = torch.where(masked, slack_scores, torch.where(canvas == slack_id, certain, impossible))
    return Columns(token=torch.where(band.inside, token, impossible), slack=slack)


def gather_columns(
    log_probs: Float[Tensor, "B L V"],
    canvas: Int[Tensor, "B L"],
    targets: Int[Tensor, "B S"],
    canvas_lengths: Int[Tensor, " B"],
    target_lengths: Int[Tensor, " B"],
    *,
    num_slack: int,
    mask_id: int,
    slack_id: int,
) -> Columns:
    """The ``K + 2`` columns per position that slack-CTC reads, visible positions clamped.

    Args:
        log_probs: Log-probabilities of every token at every position.
        canvas: The canvas as the model saw it, ``mask_id`` where masked.
        targets: Token ids, right-padded with anything.
        canvas_lengths: Content positions of each canvas.
        target_lengths: Tokens of each target.
        num_slack: ``K``, the largest slack budget in the batch.
        mask_id: Id that marks a masked position.
        slack_id: Id of ``<slack>``.

    Returns:
        Columns as the lattice takes them.

    References:
        Ours; the band is the layout of warp-rna (github.com/1ytic/warp-rna) turned to slack
        coordinates.
    """
    band = target_band(
        targets,
        canvas_lengths,
        target_lengths,
        num_positions=log_probs.shape[1],
        num_slack=num_slack,
    )
    return clamp_columns(
        log_probs.gather(2, band.ids),
        log_probs[:, :, slack_id],
        band,
        canvas,
        mask_id=mask_id,
        slack_id=slack_id,
    )
