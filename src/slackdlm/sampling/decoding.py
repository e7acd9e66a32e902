"""How do masks become tokens? The loop over blocks and steps for one batch of rows.

A step waits for the device once: for the canvas, from which the host knows what is masked.

Axis letters: ``B`` rows, ``L`` canvas positions, ``N`` tokens committed in one step.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from slackdlm.collapse import collapse
from slackdlm.models.chat import decode_answer
from slackdlm.models.loaded import LoadedModel, in_evaluation_mode
from slackdlm.sampling.config import BOUNDS, Block, SamplerConfig, schedule
from slackdlm.sampling.intervention import Dose, Placement, Proposal, ShiftIntervention, in_place
from slackdlm.sampling.noise import Cells, RowNoise
from slackdlm.sampling.prediction import Predictor
from slackdlm.sampling.strategies import STRATEGIES, spaced

OnStep = Callable[[Int64[np.ndarray, "B L"]], None]


class Commit(NamedTuple):
    """One token written on the canvas, for replays."""

    position: int
    token: int
    confidence: float
    """The strategy's score of the token where it was proposed."""
    altered: bool
    """Displaced or substituted."""
    displacement: int = 0
    """Positions from where it was proposed to where it was written."""


class Generation(NamedTuple):
    """One decoded response."""

    text: str
    """The response as the user reads it."""
    tokens: list[int]
    """Collapsed tokens up to the first end of text, which is left out."""
    canvas: list[int]
    """All ``L`` raw canvas tokens."""
    num_forwards: int
    """Model evaluations spent on this row; one with guidance counts once."""
    num_committed: int
    """Content tokens written on the canvas."""
    num_displaced: int
    """Content tokens the intervention changed."""
    dose: Dose
    """The intervention's full account."""
    steps: list[list[Commit]] | None
    """Commits per step, if traced."""


class Decoding:
    """The state of one batch while it is decoded.

    ``refill`` is ours: slack keeps room, so that a word left out can still be put in without touching the rest.

    Args:
        loaded: The model.
        config: How to decode.
        intervention: Optional intervention on what is committed.
        prompts: Token ids of each row.
        row_ids: Seed each row's noise.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        config: SamplerConfig,
        intervention: ShiftIntervention | None,
        prompts: Sequence[Sequence[int]],
        row_ids: Sequence[int],
    ) -> None:
        self.loaded = loaded
        self.config = config
        self.strategy = STRATEGIES[config.remasking]
        self.intervention = intervention
        self.predictor = Predictor(loaded, config, prompts, RowNoise(config.seed, row_ids))
        self.device = self.predictor.device
        num_rows, length = len(prompts), config.canvas_length
        # One column more than the canvas takes what is not to be written.
        self._cells = torch.full((num_rows, length + 1), loaded.mask_id, device=self.device)
        self.canvas = self._cells[:, :-1]
        self._certainty = torch.zeros_like(self._cells, dtype=torch.float32)
        self.on_host = np.full((num_rows, length), loaded.mask_id)
        if intervention is not None:
            self.shift_noise = [intervention.row_generator(row) for row in row_ids]
        special = {loaded.mask_id, loaded.slack_id, *loaded.eos_ids}
        special.update(loaded.tokenizer.all_special_ids)
        content = [i for i in range(len(loaded.tokenizer)) if i not in special]
        self.content_ids = torch.tensor(content, device=self.device)
        self.exempt_ids = torch.tensor([loaded.slack_id, loaded.pad_id], device=self.device)
        self.num_forwards = np.zeros(num_rows, dtype=np.int64)
        self.dose = torch.zeros(num_rows, len(Dose._fields), dtype=torch.long, device=self.device)
        self.placements: list[tuple[Placement, Tensor]] = []

    def run(self, on_step: OnStep | None = None) -> list[Generation]:
        """Decode every block; ``on_step`` is called with the canvases after every step."""
        with in_evaluation_mode(self.loaded.model):
            for _ in self.steps():
                if on_step is not None:
                    on_step(self.on_host)
        return self._generations()

    def steps(self) -> Iterator[None]:
        """Decode step by step, with a stop after each."""
        for block in schedule(self.config):
            yield from self._steps_of(block)
        if self.config.refill > 0:
            self._reopen(self.config.refill)
            whole = Block(0, self.config.canvas_length, self.config.refill)
            yield from self._steps_of(whole)

    def _steps_of(self, block: Block) -> Iterator[None]:
        self.predictor.enter(block)
        step = 0
        while True:
            free = self.on_host == self.loaded.mask_id
            free[:, : block.first] = free[:, block.end :] = False
            remaining = free.sum(axis=1)
            if not remaining.any():
                return
            # LLaDA's schedule: n // T per step and one more in the first n % T steps. Behind the last step,
            # whatever an intervention left is committed at once.
            due = -(-remaining // max(block.steps - step, 1))
            self._step(free, due)
            self.num_forwards += remaining > 0
            self._synchronise()
            yield
            step += 1

    @torch.inference_mode()
    def _step(self, free: Bool[np.ndarray, "B L"], due: Int64[np.ndarray, " B"]) -> None:
        """Write some of the free cells: what the model proposes, where the intervention puts it."""
        # The host tells the device which cells are free and how many are due: all in one copy.
        cells = Cells(*np.nonzero(free))
        sent = torch.from_numpy(np.concatenate([*cells, due])).to(self.device)
        at, number_due = sent[: -len(due)].view(2, -1), sent[-len(due) :]
        proposed = self.predictor.propose(self.canvas, cells, at)

        # One value per canvas cell; what is not free comes last in the order, delayed cells before it.
        is_free = self._on_canvas(torch.ones_like(at[0], dtype=torch.bool), at, 0)
        tokens = self._on_canvas(proposed.tokens, at, 0)
        scores = self._on_canvas(proposed.scores, at, 0)
        lowest = torch.finfo(proposed.scores.dtype).min
        waiting = proposed.scores.masked_fill(proposed.waits, lowest)
        order = self._on_canvas(waiting, at, -torch.inf)

        # Every row offers as many cells as the fullest one commits; ``valid`` says which are its own.
        most = int(due.max() if self.config.remasking not in BOUNDS else free.sum(axis=1).max())
        positions, values = self._first_cells(order, most)
        count = self.strategy.number(values, number_due, self.config.bound or 0.0)
        valid = torch.arange(most, device=self.device) < count[:, None]
        proposal = Proposal(positions, tokens.gather(1, positions), valid, is_free, tokens)
        placement = self._place(proposal, free)

        # What is not to be written lands in the column behind the canvas.
        target = placement.positions.masked_fill(~placement.written, self.config.canvas_length)
        certainty = scores.gather(1, placement.origins)
        self._cells.scatter_(1, target, placement.tokens)
        self._certainty.scatter_(1, target, certainty)
        self.dose += placement.dose
        if self.config.trace:
            self.placements.append((placement, certainty))

    def _on_canvas(self, values: Tensor, at: Int64[Tensor, "2 M"], fill: float) -> Tensor:
        """``[B, L]`` with these values at the cells ``at``."""
        return values.new_full(self.canvas.shape, fill).index_put_((at[0], at[1]), values)

    def _first_cells(
        self, order: Float[Tensor, "B L"], most: int
    ) -> tuple[Int64[Tensor, "B N"], Float[Tensor, "B N"]]:
        """Positions that come first, and their place in the order."""
        if self.config.spacing > 1:
            positions = spaced(order, most, spacing=self.config.spacing)
            return positions, order.gather(1, positions)
        ordered = order.sort(dim=1, descending=True, stable=True)
        return ordered.indices[:, :most], ordered.values[:, :most]

    def _place(self, proposal: Proposal, free: Bool[np.ndarray, "B L"]) -> Placement:
        if self.intervention is None:
            return in_place(proposal, exempt_ids=self.exempt_ids)
        # A row draws in its own steps alone and for the whole canvas, so that batch-mates change nothing.
        length, most = self.config.canvas_length, proposal.positions.shape[1]
        draws = np.ones((len(free), most, 3))
        for row in np.nonzero(free.any(axis=1))[0].tolist():
            drawn = self.shift_noise[row].random((length, 3))[:most]
            num_masked = int(np.count_nonzero(self.on_host[row] == self.loaded.mask_id))
            if self.intervention.acts(num_masked / length):
                draws[row] = drawn
        ids = {"exempt_ids": self.exempt_ids, "content_ids": self.content_ids}
        return self.intervention.place(proposal, torch.from_numpy(draws), **ids)

    @torch.inference_mode()
    def _reopen(self, most: int) -> None:
        """Mask each row's least certain slack cells before its first end, and their neighbours there."""
        certainty = self._certainty[:, :-1].cpu().numpy()
        length = np.arange(self.config.canvas_length)
        inside = length < _first(np.isin(self.on_host, self.loaded.eos_ids))[:, None]
        slack = inside & (self.on_host == self.loaded.slack_id)
        order = np.where(slack, certainty, np.inf).argsort(axis=1, kind="stable")[:, :most]
        chosen = np.zeros_like(slack)
        np.put_along_axis(chosen, order, np.take_along_axis(slack, order, axis=1), axis=1)
        opened = chosen.copy()
        opened[:, 1:] |= chosen[:, :-1]
        opened[:, :-1] |= chosen[:, 1:]
        opened &= inside
        self.canvas.masked_fill_(torch.from_numpy(opened).to(self.device), self.loaded.mask_id)
        self.on_host[opened] = self.loaded.mask_id

    @torch.inference_mode()
    def _synchronise(self) -> None:
        """Bring the canvas to the host; fill rows whose text is settled."""
        self.on_host = self.canvas.cpu().numpy().copy()
        if not self.config.early_stop:
            return
        masked = self.on_host == self.loaded.mask_id
        ends = np.isin(self.on_host, self.loaded.eos_ids)
        settled = ends.any(axis=1) & (ends.argmax(axis=1) < _first(masked))
        behind = masked & settled[:, None]
        if behind.any():
            self.on_host[behind] = self.loaded.pad_id
            where = torch.from_numpy(behind).to(self.device)
            self.canvas.masked_fill_(where, self.loaded.pad_id)

    def _generations(self) -> list[Generation]:
        doses = [Dose(*row) for row in self.dose.tolist()]
        steps = self._commits() if self.config.trace else [None] * len(doses)
        generations: list[Generation] = []
        for row, dose in enumerate(doses):
            canvas: list[int] = self.on_host[row].tolist()
            ends = (i for i, token in enumerate(canvas) if token in self.loaded.eos_ids)
            response = canvas[: next(ends, len(canvas))]
            tokens = collapse(response, slack_id=self.loaded.slack_id, mode=self.config.collapse)
            generations.append(
                Generation(
                    text=decode_answer(self.loaded.tokenizer, tokens),
                    tokens=tokens,
                    canvas=canvas,
                    num_forwards=int(self.num_forwards[row]),
                    num_committed=dose.committed,
                    num_displaced=dose.displaced,
                    dose=dose,
                    steps=steps[row],
                )
            )
        return generations

    def _commits(self) -> list[list[list[Commit]]]:
        """Commits of every row and step; a row that waits for its batch-mates has empty steps."""
        steps: list[list[list[Commit]]] = [[] for _ in self.on_host]
        for placement, certainty in self.placements:
            columns = (
                placement.positions,
                placement.tokens,
                certainty,
                placement.altered,
                placement.positions - placement.origins,
                placement.written,
            )
            for row, cells in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
                commits = [Commit(*cell[:5]) for cell in zip(*cells, strict=True) if cell[5]]
                steps[row].append(commits)
        return steps


def _first(flags: Bool[np.ndarray, "B L"]) -> Int64[np.ndarray, " B"]:
    """Place of each row's first True; one past the end where there is none."""
    return np.where(flags.any(axis=1), flags.argmax(axis=1), flags.shape[1])
