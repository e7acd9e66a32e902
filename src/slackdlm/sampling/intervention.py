"""What happens if some tokens land one position off? The controlled intervention of arXiv 2601.22947.

Axis letters: ``B`` rows, ``L`` canvas positions, ``N`` tokens proposed in this step.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slackdlm.errors import ConfigError

InterventionKind = Literal["shift", "substitute", "drop"]
Direction = Literal["left", "right", "both"]


class Proposal(NamedTuple):
    """The tokens a step is about to commit, in descending confidence, and where they may go."""

    positions: Int[Tensor, "B N"]
    tokens: Int[Tensor, "B N"]
    valid: Bool[Tensor, "B N"]
    """False behind a row's own number of tokens."""
    free: Bool[Tensor, "B L"]
    """Masked cells of the active block: where a token may be written."""


class Placement(NamedTuple):
    """What a step really commits."""

    positions: Int[Tensor, "B N"]
    tokens: Int[Tensor, "B N"]
    written: Bool[Tensor, "B N"]
    altered: Bool[Tensor, "B N"]
    """Displaced or substituted."""
    dose: Int[Tensor, "B 5"]
    """Counts of this step, columns in the order of :class:`Dose`."""


class Dose(NamedTuple):
    """How much intervention there really was; counts of content tokens, which slack and padding are not."""

    asked: int
    """Commits drawn for intervention."""
    displaced: int
    """Commits it changed: displaced, substituted or dropped."""
    impossible: int
    """Asked to shift, but no neighbour was free: committed in place."""
    lost: int
    """Not committed in this step because an earlier token of the step had been displaced onto its place."""
    committed: int
    """Tokens written, displaced ones included."""


class ShiftIntervention:
    """Displaces each content token by one position with a given probability while it is committed.

    Tokens of a step are taken in descending confidence. A token asked to shift is written on a free neighbour
    (masked at that moment, inside the response and the active block; if both are free, either with probability
    1/2); its own place stays masked and is decoded later. A token whose place was just taken is not committed in
    this step. ``<slack>`` and end-of-text padding are neither displaced nor counted, so the dose is a share of
    content tokens in every arm.

    Args:
        rate: Probability per content token, in ``[0, 1]``; below 1 for ``drop``, which could not end otherwise.
        kind: ``shift``; or the controls ``substitute`` (another random content token, in place) and ``drop``
            (this commit is skipped).
        direction: Neighbours that ``shift`` may use.
        seed: With the row's id it decides everything: batch-mates change nothing.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        arXiv 2601.22947, the probe; details that its abstract leaves open are ours.
    """

    def __init__(
        self,
        rate: float,
        *,
        kind: InterventionKind = "shift",
        direction: Direction = "both",
        seed: int,
    ) -> None:
        if kind not in ("shift", "substitute", "drop"):
            raise ConfigError(f"intervention: unknown kind {kind!r}; use shift, substitute or drop")
        if direction not in ("left", "right", "both"):
            raise ConfigError(
                f"intervention: unknown direction {direction!r}; use left, right or both"
            )
        if not 0 <= rate <= 1 or (kind == "drop" and rate == 1):
            allowed = "[0, 1)" if kind == "drop" else "[0, 1]"
            raise ConfigError(f"intervention: rate of {kind} must lie in {allowed}, got {rate}")
        self.rate = rate
        self.kind: InterventionKind = kind
        self.direction: Direction = direction
        self.seed = seed

    def row_generator(self, row_id: int) -> np.random.Generator:
        """The generator of one row; the tag keeps it apart from the sampler's own noise at the same seed."""
        return np.random.Generator(np.random.PCG64([self.seed, row_id, 1]))

    def place(
        self,
        proposal: Proposal,
        uniforms: Float[Tensor, "B N 3"],
        *,
        exempt_ids: Int[Tensor, " E"],
        content_ids: Int[Tensor, " C"],
    ) -> Placement:
        """Decide where each proposed token goes.

        Args:
            proposal: What the strategy chose.
            uniforms: Draws in ``[0, 1)``: whether to intervene, which way, which substitute.
            exempt_ids: Tokens that are not content: ``<slack>`` and padding.
            content_ids: Tokens a substitute is drawn from, at least 2.
        """
        content = proposal.valid & ~torch.isin(proposal.tokens, exempt_ids)
        asked = content & (uniforms[..., 0] < self.rate)
        if self.kind == "shift":
            return self._shift(proposal, content, asked, uniforms[..., 1])
        tokens, written = proposal.tokens, proposal.valid
        if self.kind == "substitute":
            tokens = torch.where(asked, _other(tokens, content_ids, uniforms[..., 2]), tokens)
            altered = asked
        else:
            written = proposal.valid & ~asked
            altered = torch.zeros_like(asked)
        none = torch.zeros_like(asked)
        return Placement(
            proposal.positions,
            tokens,
            written,
            altered,
            _dose(asked, asked, none, none, content & written),
        )

    def _shift(
        self,
        proposal: Proposal,
        content: Bool[Tensor, "B N"],
        asked: Bool[Tensor, "B N"],
        coin: Float[Tensor, "B N"],
    ) -> Placement:
        num_cells = proposal.free.shape[1]
        free = proposal.free.clone()
        positions = proposal.positions.clone()
        written, displaced, impossible, lost = (torch.zeros_like(asked) for _ in range(4))
        for n in range(positions.shape[1]):
            own = positions[:, n : n + 1]
            alive = proposal.valid[:, n] & free.gather(1, own)[:, 0]
            left = (own > 0)[:, 0] & free.gather(1, (own - 1).clamp_min(0))[:, 0]
            right = (own < num_cells - 1)[:, 0] & free.gather(
                1, (own + 1).clamp_max(num_cells - 1)
            )[:, 0]
            if self.direction == "left":
                right = torch.zeros_like(right)
            elif self.direction == "right":
                left = torch.zeros_like(left)
            wants = asked[:, n] & alive
            moves = wants & (left | right)
            step = torch.where(left & (~right | (coin[:, n] < 0.5)), -1, 1)
            target = torch.where(moves, own[:, 0] + step, own[:, 0])
            positions[:, n] = target
            written[:, n] = alive
            displaced[:, n] = moves
            impossible[:, n] = wants & ~moves
            lost[:, n] = content[:, n] & ~alive
            still_free = free.gather(1, target[:, None]) & ~alive[:, None]
            free.scatter_(1, target[:, None], still_free)
        dose = _dose(asked & ~lost, displaced, impossible, lost, content & written)
        return Placement(positions, proposal.tokens, written, displaced, dose)


def _other(
    tokens: Int[Tensor, "B N"], content_ids: Int[Tensor, " C"], uniform: Float[Tensor, "B N"]
) -> Int[Tensor, "B N"]:
    """A uniformly random content token other than the one given."""
    num_content = content_ids.numel()
    if num_content < 2:
        raise ConfigError(
            f"substitute: needs at least 2 content tokens in the vocabulary, got {num_content}"
        )
    place = torch.searchsorted(content_ids, tokens).clamp_max(num_content - 1)
    is_content = content_ids[place] == tokens
    choices = num_content - is_content.long()
    draw = torch.minimum((uniform * choices).long(), choices - 1)
    return content_ids[draw + (is_content & (draw >= place)).long()]


def _dose(*counts: Bool[Tensor, "B N"]) -> Int[Tensor, "B 5"]:
    return torch.stack([count.sum(dim=1) for count in counts], dim=1)
