"""Which scores does the lattice need? A band of target columns and slack, visible places clamped.

Axis letters: ``B`` batch, ``L`` canvas positions, ``S`` target tokens, ``K`` slack budget, ``V``
vocabulary. Position ``i`` reached with ``k`` slack tokens behind it can only emit ``y[i - k]`` or
``<slack>``, so ``K + 1`` target columns per position are all a lattice ever reads.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Batch(NamedTuple):
    """Canvases and the targets that they may collapse to."""

    canvas: Int[Tensor, "B L"]
    """The canvas as the model saw it, ``mask_id`` where masked."""
    targets: Int[Tensor, "B S"]
    """Token ids, right-padded with anything."""
    canvas_lengths: Int[Tensor, " B"]
    """Content positions of each canvas, at most ``L``."""
    target_lengths: Int[Tensor, " B"]
    """Tokens of each target, at most ``S``."""
    mask_id: int
    """Id that marks a masked position."""
    slack_id: int
    """Id of ``<slack>``."""
    num_slack: int
    """``K``, the largest slack budget in the batch, at least 0; the band is ``K + 1`` wide."""


class Band(NamedTuple):
    """The target token of every lattice edge."""

    ids: Int[Tensor, "B L band"]
    """Entry ``[i, k]`` is ``y[i - k]``; 0 where there is no such token."""
    inside: Bool[Tensor, "B L band"]
    """True where ``y[i - k]`` exists and ``i`` lies on the canvas."""


class Columns(NamedTuple):
    """The scores of every lattice edge, in nats: all that a lattice kernel takes.

    Scores that are not normalised are fine too: a constant per position moves the log-likelihood
    and leaves the posteriors.
    """

    token: Float[Tensor, "B L band"]
    """Entry ``[i, k]``: log-probability of ``y[i - k]`` at position ``i``, ``-inf`` where there is no
    such token. Float32 or float64."""
    slack: Float[Tensor, "B L"]
    """Log-probability of ``<slack>`` at each position."""
    canvas_lengths: Int[Tensor, " B"]
    """Positions of each sample, at most ``L``; later positions are not read."""
    target_lengths: Int[Tensor, " B"]
    """Tokens of each sample."""

    def in_float64(self) -> "Columns":
        """The same with scores in float64."""
        return self._replace(token=self.token.double(), slack=self.slack.double())


def target_band(batch: Batch) -> Band:
    """The target token that each position would emit after each amount of slack.

    A sample with a smaller budget simply never reaches its last columns.
    """
    targets = batch.targets
    positions = torch.arange(batch.canvas.shape[1], device=targets.device)
    slack_used = torch.arange(batch.num_slack + 1, device=targets.device)
    token_index = positions[:, None] - slack_used  # [L, K+1]
    inside = (
        (token_index >= 0)
        & (token_index < batch.target_lengths[:, None, None])
        & (positions[:, None] < batch.canvas_lengths[:, None, None])
    )
    if targets.shape[1] == 0:
        return Band(ids=torch.zeros_like(inside, dtype=torch.long), inside=inside)
    ids = targets.long()[:, token_index.clamp(0, targets.shape[1] - 1)]
    return Band(ids=ids.masked_fill(~inside, 0), inside=inside)


def clamp_columns(
    token_scores: Float[Tensor, "B L band"],
    slack_scores: Float[Tensor, "B L"],
    band: Band,
    batch: Batch,
) -> Columns:
    """Lattice columns in which a visible position can only emit what is visible there.

    Args:
        token_scores: Score of ``band.ids`` at each position; values outside the band do not matter.
        slack_scores: Score of ``<slack>`` at each position.
        band: Which token sits on which edge.
        batch: The canvases.

    Returns:
        At masked positions the scores; at visible ones 0 for the visible token and ``-inf`` for all
        others, so that no gradient reaches the scores there; ``-inf`` outside the band.
    """
    canvas, masked = batch.canvas, batch.canvas == batch.mask_id
    impossible = token_scores.new_full((), -torch.inf)
    certain = token_scores.new_zeros(())
    token_if_visible = torch.where(band.ids == canvas[:, :, None], certain, impossible)
    token = torch.where(masked[:, :, None], token_scores, token_if_visible)
    slack_if_visible = torch.where(canvas == batch.slack_id, certain, impossible)
    return Columns(
        token=torch.where(band.inside, token, impossible),
        slack=torch.where(masked, slack_scores, slack_if_visible),
        canvas_lengths=batch.canvas_lengths,
        target_lengths=batch.target_lengths,
    )


def gather_columns(log_probs: Float[Tensor, "B L V"], batch: Batch) -> Columns:
    """The ``K + 2`` columns per position that slack-CTC reads, visible positions clamped.

    References:
        Ours; the band is the layout of warp-rna (github.com/1ytic/warp-rna) turned to slack
        coordinates.
    """
    band = target_band(batch)
    slack = log_probs[:, :, batch.slack_id]
    return clamp_columns(log_probs.gather(2, band.ids), slack, band, batch)
