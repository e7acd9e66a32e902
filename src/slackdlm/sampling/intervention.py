"""What happens if some tokens land one position off? The controlled intervention of arXiv 2601.22947.

Axis letters: ``B`` rows, ``L`` canvas positions, ``N`` tokens proposed in this step, ``W`` tokens it may write.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slackdlm.errors import ConfigError
from slackdlm.sampling.config import Direction, InterventionConfig, InterventionKind, Phase


class Proposal(NamedTuple):
    """The tokens a step is about to commit, in descending confidence, and where they may go."""

    positions: Int[Tensor, "B N"]
    tokens: Int[Tensor, "B N"]
    valid: Bool[Tensor, "B N"]
    """False behind a row's own number of tokens."""
    free: Bool[Tensor, "B L"]
    """Masked cells of the active block: where a token may be written."""
    predicted: Int[Tensor, "B L"]
    """The token the model proposes for every free cell."""


class Placement(NamedTuple):
    """What a step really commits."""

    positions: Int[Tensor, "B W"]
    tokens: Int[Tensor, "B W"]
    written: Bool[Tensor, "B W"]
    altered: Bool[Tensor, "B W"]
    """Displaced or substituted."""
    origins: Int[Tensor, "B W"]
    """The positions for which the tokens were proposed."""
    dose: Int[Tensor, "B 5"]
    """Counts of this step, columns in the order of :class:`Dose`."""


class Dose(NamedTuple):
    """How much intervention there really was; counts of content tokens, which slack and padding are not."""

    asked: int
    """Commits drawn for the intervention."""
    displaced: int
    """Commits it changed: displaced, substituted or dropped; a swap changes two."""
    impossible: int
    """Asked to shift or swap, but no neighbour was free: committed in place."""
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
        kind: ``shift``; or the controls ``substitute`` (another random content token, in place), ``drop`` (this
            commit is skipped) and ``swap`` (the token and the content token proposed for a free neighbour are both
            committed, each on the other's place).
        direction: Neighbours that ``shift`` and ``swap`` may use.
        when: ``early`` acts while more than half of a row's canvas is masked, ``late`` from then on.
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
        when: Phase = "always",
        seed: int,
    ) -> None:
        InterventionConfig(kind=kind, rate=rate, direction=direction, when=when)  # checks them
        self.rate = rate
        self.kind: InterventionKind = kind
        self.direction: Direction = direction
        self.when: Phase = when
        self.seed = seed

    def row_generator(self, row_id: int) -> np.random.Generator:
        """The generator of one row; the tag keeps it apart from the sampler's own noise at the same seed."""
        return np.random.Generator(np.random.PCG64([self.seed, row_id, 1]))

    def acts(self, masked_share: float) -> bool:
        """Whether this is its phase, while so much of a row's canvas is masked."""
        return self.when == "always" or (masked_share > 0.5) == (self.when == "early")

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
            uniforms: Draws in ``[0, 1)``, on the CPU: whether to intervene, which way, which substitute. 1 in the
                first place never intervenes.
            exempt_ids: Tokens that are not content: ``<slack>`` and padding.
            content_ids: Tokens a substitute is drawn from, ascending, at least 2.
        """
        # Ranks at which no row draws an intervention are known without waiting for the device.
        # In NumPy, which is quicker at so few numbers.
        ranks = np.flatnonzero((uniforms[..., 0].numpy() < self.rate).any(axis=0)).tolist()
        plain = in_place(proposal, exempt_ids=exempt_ids)
        if not ranks:
            return plain
        uniforms = uniforms.to(proposal.tokens.device)
        content = _is_content(proposal, exempt_ids)
        drawn = content & (uniforms[..., 0] < self.rate)
        none = torch.zeros_like(drawn)
        if self.kind == "drop":
            dose = _dose(drawn, drawn, none, none, content & ~drawn)
            return plain._replace(written=proposal.valid & ~drawn, dose=dose)
        if self.kind == "substitute":
            others = _other(proposal.tokens, content_ids, uniforms[..., 2])
            tokens = torch.where(drawn, others, proposal.tokens)
            dose = _dose(drawn, drawn, none, none, content)
            return plain._replace(tokens=tokens, altered=drawn, dose=dose)
        neighbours = proposal.free
        if self.kind == "swap":
            neighbours = neighbours & ~torch.isin(proposal.predicted, exempt_ids)
        return self._displace(proposal, neighbours, content, drawn, uniforms[..., 1], ranks)

    def _displace(
        self,
        proposal: Proposal,
        neighbours: Bool[Tensor, "B L"],
        content: Bool[Tensor, "B N"],
        drawn: Bool[Tensor, "B N"],
        coin: Float[Tensor, "B N"],
        ranks: list[int],
    ) -> Placement:
        """Shift or swap, rank by rank where a row draws one; the ranks between them at once."""
        cells, free = proposal.positions, proposal.free.clone()
        landings = cells.clone()
        written, moved = torch.zeros_like(drawn), torch.zeros_like(drawn)
        swapped = torch.zeros_like(free)  # cells that a swap wrote before their own rank
        begin = 0
        for n in ranks:
            _settle(proposal, free, written, slice(begin, n))
            # A token whose cell is still free goes to a neighbour if it is drawn and has one.
            cell = cells[:, n : n + 1]
            writes = proposal.valid[:, n : n + 1] & free.gather(1, cell)
            target = self._neighbour(cell, free & neighbours, coin[:, n : n + 1])
            moves = drawn[:, n : n + 1] & writes & (target != cell)
            landing = torch.where(moves, target, cell)
            written[:, n : n + 1], moved[:, n : n + 1] = writes, moves
            landings[:, n : n + 1] = landing
            free.scatter_(1, landing, free.gather(1, landing) & ~writes)
            if self.kind == "swap":
                free.scatter_(1, cell, free.gather(1, cell) & ~writes)
                swapped.scatter_(1, landing, swapped.gather(1, landing) | moves)
            begin = n + 1
        _settle(proposal, free, written, slice(begin, cells.shape[1]))
        lost = content & ~written & ~swapped.gather(1, cells)
        impossible = drawn & written & ~moved
        dose = _dose(drawn & written, moved, impossible, lost, content & written)
        if self.kind == "shift":
            return Placement(landings, proposal.tokens, written, moved, cells, dose)
        # A swap also writes the neighbour's token, on the cell that the first token left.
        both = [Dose._fields.index("displaced"), Dose._fields.index("committed")]
        dose[:, both] += moved.sum(dim=1, keepdim=True)
        partners = proposal.predicted.gather(1, landings)
        return Placement(
            torch.cat([landings, cells], dim=1),
            torch.cat([proposal.tokens, partners], dim=1),
            torch.cat([written, moved], dim=1),
            torch.cat([moved, moved], dim=1),
            torch.cat([cells, landings], dim=1),
            dose,
        )

    def _neighbour(
        self, cell: Int[Tensor, "B 1"], open_: Bool[Tensor, "B L"], coin: Float[Tensor, "B 1"]
    ) -> Int[Tensor, "B 1"]:
        """The open neighbour each row's token goes to; its own cell if there is none."""
        last = open_.shape[1] - 1
        left = (cell > 0) & open_.gather(1, (cell - 1).clamp_min(0))
        right = (cell < last) & open_.gather(1, (cell + 1).clamp_max(last))
        if self.direction == "left":
            right = torch.zeros_like(right)
        elif self.direction == "right":
            left = torch.zeros_like(left)
        step = torch.where(left & (~right | (coin < 0.5)), -1, 1)
        return torch.where(left | right, cell + step, cell)


def in_place(proposal: Proposal, *, exempt_ids: Int[Tensor, " E"]) -> Placement:
    """Every token where it was proposed: what a step commits without an intervention."""
    content = _is_content(proposal, exempt_ids)
    none = torch.zeros_like(content)
    return Placement(
        proposal.positions,
        proposal.tokens,
        proposal.valid,
        none,
        proposal.positions,
        _dose(none, none, none, none, content),
    )


def _is_content(proposal: Proposal, exempt_ids: Int[Tensor, " E"]) -> Bool[Tensor, "B N"]:
    return proposal.valid & ~torch.isin(proposal.tokens, exempt_ids)


def _settle(
    proposal: Proposal, free: Bool[Tensor, "B L"], written: Bool[Tensor, "B N"], ranks: slice
) -> None:
    """Commit these ranks in place where that is still free; their cells differ."""
    cells = proposal.positions[:, ranks]
    writes = proposal.valid[:, ranks] & free.gather(1, cells)
    written[:, ranks] = writes
    free.scatter_(1, cells, free.gather(1, cells) & ~writes)


def _other(
    tokens: Int[Tensor, "B N"], content_ids: Int[Tensor, " C"], uniform: Float[Tensor, "B N"]
) -> Int[Tensor, "B N"]:
    """A uniformly random content token other than the one given."""
    num_content = content_ids.numel()
    if num_content < 2:
        raise ConfigError(
            f"substitute: needs at least 2 content tokens in the vocabulary, got {num_content}"
        )
    index = torch.searchsorted(content_ids, tokens).clamp_max(num_content - 1)
    is_content = content_ids[index] == tokens
    choices = num_content - is_content.long()
    draw = torch.minimum((uniform * choices).long(), choices - 1)
    return content_ids[draw + (is_content & (draw >= index)).long()]


def _dose(*counts: Bool[Tensor, "B N"]) -> Int[Tensor, "B 5"]:
    """Counts of a step in the order of :class:`Dose`."""
    return torch.stack([count.sum(dim=1) for count in counts], dim=1)
