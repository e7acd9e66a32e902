"""How is a canvas of masks decoded? LLaDA's iterative unmasking, one sampler for everything.

Axis letters: ``B`` rows, ``L`` canvas positions, ``M`` masked cells of the active block, ``N`` tokens committed in one
step, ``T`` steps, ``V`` vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slackdlm.collapse import CollapseMode, collapse
from slackdlm.errors import ConfigError, DataError
from slackdlm.models.chat import encode_prompt
from slackdlm.models.loading import LoadedModel, head_weight
from slackdlm.sampling.intervention import Dose, Placement, Proposal, ShiftIntervention
from slackdlm.sampling.strategies import Remasking, gumbel_argmax, low_confidence

Prompt = str | Sequence[dict[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerConfig:
    """Everything that decides an output beside the model and the prompt."""

    canvas_length: int
    """``L``, positions of the response canvas, slack and padding included (LLaDA's ``gen_length``)."""
    steps: int
    """``T``, denoising steps over all blocks; more are taken only if an intervention leaves masks behind."""
    block_length: int | None = None
    """Positions decoded together before the next block starts; ``None``: the whole canvas."""
    temperature: float = 0.0
    """Of the Gumbel noise; 0 is greedy."""
    remasking: Remasking = "low_confidence"
    """Which cells stay masked: those of low confidence, or random ones."""
    collapse: CollapseMode = "slack"
    """How the canvas becomes text; ``graves`` only for models trained for it."""
    seed: int = 0
    """With a row's id it decides that row's noise."""
    batch_size: int = 32
    """Rows decoded together; does not change any output."""
    trace: bool = False
    """Keep every step's commits in ``Generation.steps``."""

    def __post_init__(self) -> None:
        if self.canvas_length < 1 or self.batch_size < 1:
            raise ConfigError("sampler: canvas_length and batch_size must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"sampler: temperature must be at least 0, got {self.temperature}")
        if self.remasking not in ("low_confidence", "random"):
            raise ConfigError(
                f"sampler: unknown remasking {self.remasking!r}; use low_confidence or random"
            )
        if self.block_length is not None and not 1 <= self.block_length <= self.canvas_length:
            raise ConfigError(
                f"sampler: block_length must lie in [1, canvas_length={self.canvas_length}], "
                f"got {self.block_length}"
            )
        if self.steps < self.num_blocks:
            raise ConfigError(
                f"sampler: {self.num_blocks} blocks need at least as many steps, got {self.steps}; "
                "raise steps or block_length"
            )

    @property
    def num_blocks(self) -> int:
        """Blocks on the canvas; the last may be shorter."""
        return -(-self.canvas_length // (self.block_length or self.canvas_length))


class Commit(NamedTuple):
    """One token written on the canvas, for replays."""

    position: int
    token: int
    confidence: float
    altered: bool


class Generation(NamedTuple):
    """One decoded response."""

    text: str
    """The response as the user reads it."""
    tokens: list[int]
    """Collapsed tokens up to the first end of text, which is left out."""
    canvas: list[int]
    """All ``L`` raw canvas tokens."""
    num_forwards: int
    """Model evaluations spent on this row."""
    num_committed: int
    """Content tokens written on the canvas."""
    num_displaced: int
    """Content tokens the intervention changed."""
    dose: Dose
    """The intervention's full account."""
    steps: list[list[Commit]] | None
    """Commits per step, if traced."""


class Sampler:
    """Decodes prompts with a masked diffusion model.

    Args:
        loaded: Model, tokenizer and special ids.
        config: How to decode.
        intervention: Optional intervention on what is committed.

    References:
        Nie et al., 2025 (LLaDA), Algorithm 5 and ``generate.py``. Unlike there, a mask is never committed, any
        number of steps and block length leaves no mask behind, and confidences are float32.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        config: SamplerConfig,
        intervention: ShiftIntervention | None = None,
    ) -> None:
        self.loaded = loaded
        self.config = config
        self.intervention = intervention

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        row_ids: Sequence[int] | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[Generation]:
        """Decode a response for each prompt.

        Args:
            prompts: User texts, or chats as lists of ``{"role", "content"}``.
            row_ids: Ids that seed each row's noise, at least 0; by default 0, 1, 2, ...
            on_batch: Called with the number of prompts just finished, for progress bars.

        Returns:
            One generation per prompt, in order. They do not depend on ``batch_size`` or batch-mates.

        Raises:
            DataError: If a prompt cannot be encoded, or the number of ids is not that of prompts.
        """
        ids = list(range(len(prompts))) if row_ids is None else list(row_ids)
        if len(ids) != len(prompts):
            raise DataError(f"generate: {len(prompts)} prompts but {len(ids)} row ids")
        encoded = [encode_prompt(self.loaded.tokenizer, _messages(prompt)) for prompt in prompts]
        self._check_lengths(encoded)
        generations: list[Generation] = []
        for start in range(0, len(encoded), self.config.batch_size):
            rows = slice(start, start + self.config.batch_size)
            batch = _Decoding(self, encoded[rows], ids[rows]).run()
            generations += batch
            if on_batch is not None:
                on_batch(len(batch))
        return generations

    def _check_lengths(self, encoded: Sequence[list[int]]) -> None:
        room = self.loaded.max_length - self.config.canvas_length
        too_long = [row for row, prompt in enumerate(encoded) if len(prompt) > room]
        if too_long:
            raise DataError(
                f"generate: {len(too_long)} of {len(encoded)} prompts are longer than the {room} tokens that "
                f"a canvas of {self.config.canvas_length} leaves, the first is prompt {too_long[0]} "
                f"with {len(encoded[too_long[0]])}; shorten the prompt or the canvas"
            )


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def schedule(config: SamplerConfig) -> list[tuple[int, int, int]]:
    """Blocks to decode: (first position, one past the last, steps), earlier blocks taking the remainder."""
    length = config.block_length or config.canvas_length
    base, extra = divmod(config.steps, config.num_blocks)
    return [
        (b * length, min((b + 1) * length, config.canvas_length), base + (b < extra))
        for b in range(config.num_blocks)
    ]


class _Decoding:
    """The state of one batch while it is decoded."""

    def __init__(self, sampler: Sampler, prompts: list[list[int]], row_ids: list[int]) -> None:
        self.loaded = sampler.loaded
        self.config = sampler.config
        self.intervention = sampler.intervention
        self.device = next(self.loaded.model.parameters()).device
        longest = max(len(prompt) for prompt in prompts)
        rows = len(prompts)
        self.prompts = torch.full((rows, longest), self.loaded.pad_id, dtype=torch.long)
        attention = torch.ones(rows, longest + self.config.canvas_length, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            self.prompts[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
            attention[row, : longest - len(prompt)] = 0
        self.prompts = self.prompts.to(self.device)
        self.attention = attention.to(self.device)
        self.canvas = torch.full(
            (rows, self.config.canvas_length),
            self.loaded.mask_id,
            dtype=torch.long,
            device=self.device,
        )
        self.noise = [
            np.random.Generator(np.random.PCG64([self.config.seed, row])) for row in row_ids
        ]
        if self.intervention is not None:
            self.shift_noise = [self.intervention.row_generator(row) for row in row_ids]
        special = {
            self.loaded.mask_id,
            self.loaded.slack_id,
            *self.loaded.tokenizer.all_special_ids,
        }
        content = [i for i in range(len(self.loaded.tokenizer)) if i not in special]
        self.content_ids = torch.tensor(content, device=self.device)
        self.exempt_ids = torch.tensor(
            [self.loaded.slack_id, self.loaded.pad_id], device=self.device
        )
        self.num_forwards = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.dose = torch.zeros(rows, len(Dose._fields), dtype=torch.long, device=self.device)
        self.steps: list[list[list[Commit]]] = [[] for _ in prompts]

    @torch.inference_mode()
    def run(self) -> list[Generation]:
        was_training = self.loaded.model.training
        self.loaded.model.eval()
        for first, end, steps in schedule(self.config):
            self._decode_block(first, end, steps)
        self.loaded.model.train(was_training)
        return self._generations()

    def _decode_block(self, first: int, end: int, steps: int) -> None:
        in_block = torch.zeros_like(self.canvas, dtype=torch.bool)
        in_block[:, first:end] = True
        step = 0
        while True:
            free = in_block & (self.canvas == self.loaded.mask_id)
            remaining = free.sum(dim=1)
            most = int(remaining.max())
            if most == 0:
                return
            # LLaDA's schedule: n // T per step and one more in the first n % T steps. Behind the last step,
            # whatever an intervention left is committed at once.
            steps_left = max(steps - step, 1)
            count = -(-remaining // steps_left)
            self._step(free, count, num_proposed=-(-most // steps_left))
            self.num_forwards += (remaining > 0).long()
            step += 1

    def _step(
        self, free: Bool[Tensor, "B L"], count: Int[Tensor, " B"], *, num_proposed: int
    ) -> None:
        proposed, confidence = self._predict(free)
        order = confidence.sort(dim=1, descending=True, stable=True)
        positions = order.indices[:, :num_proposed]
        valid = torch.arange(num_proposed, device=self.device) < count[:, None]
        tokens = proposed.gather(1, positions)
        placement = self._place(Proposal(positions, tokens, valid, free))
        rows = torch.arange(len(self.canvas), device=self.device)[:, None].expand_as(positions)
        written = placement.written
        self.canvas[rows[written], placement.positions[written]] = placement.tokens[written]
        self.dose += placement.dose
        if self.config.trace:
            self._record(placement, order.values[:, :num_proposed])

    def _predict(
        self, free: Bool[Tensor, "B L"]
    ) -> tuple[Int[Tensor, "B L"], Float[Tensor, "B L"]]:
        """The token proposed for every free cell and its confidence; -inf elsewhere."""
        model = self.loaded.model
        inputs = torch.cat([self.prompts, self.canvas], dim=1)
        output = model(input_ids=inputs, attention_mask=self.attention, logits=False)
        hidden = output.last_hidden_state[:, self.prompts.shape[1] :][free]
        logits = F.linear(hidden, head_weight(model)).float()
        choosable = logits.clone()
        choosable[:, self.loaded.mask_id] = -torch.inf
        uniforms = self._uniforms(free, logits.shape[1]) if self.config.temperature > 0 else None
        chosen = gumbel_argmax(choosable, uniforms, temperature=self.config.temperature)
        tokens = torch.zeros_like(self.canvas)
        tokens[free] = chosen
        confidence = torch.full(free.shape, -torch.inf, device=self.device)
        if self.config.remasking == "random":
            confidence[free] = self._uniforms(free, 1)[:, 0].float()
        else:
            confidence[free] = low_confidence(logits, chosen)
        return tokens, confidence

    def _uniforms(self, free: Bool[Tensor, "B L"], width: int) -> Float[Tensor, "M width"]:
        """Uniform draws for every free cell, each row from its own generator."""
        counts = free.sum(dim=1).tolist()
        draws = [
            noise.random((count, width)) for noise, count in zip(self.noise, counts, strict=True)
        ]
        return torch.from_numpy(np.concatenate(draws)).to(self.device)

    def _place(self, proposal: Proposal) -> Placement:
        if self.intervention is None:
            content = proposal.valid & ~torch.isin(proposal.tokens, self.exempt_ids)
            dose = torch.zeros_like(self.dose)
            dose[:, Dose._fields.index("committed")] = content.sum(dim=1)
            return Placement(
                proposal.positions,
                proposal.tokens,
                proposal.valid,
                torch.zeros_like(proposal.valid),
                dose,
            )
        # A row draws in its own steps alone and for the whole canvas, so that batch-mates change nothing.
        length, num_proposed = self.config.canvas_length, proposal.positions.shape[1]
        draws = np.zeros((len(self.canvas), num_proposed, 3))
        for row in torch.nonzero(proposal.valid.any(dim=1))[:, 0].tolist():
            draws[row] = self.shift_noise[row].random((length, 3))[:num_proposed]
        return self.intervention.place(
            proposal,
            torch.from_numpy(draws).to(self.device),
            exempt_ids=self.exempt_ids,
            content_ids=self.content_ids,
        )

    def _record(self, placement: Placement, confidence: Float[Tensor, "B N"]) -> None:
        columns = (
            placement.positions,
            placement.tokens,
            confidence,
            placement.altered,
            placement.written,
        )
        for row, cells in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
            commits = [Commit(*cell[:4]) for cell in zip(*cells, strict=True) if cell[4]]
            self.steps[row].append(commits)

    def _generations(self) -> list[Generation]:
        generations: list[Generation] = []
        canvases, doses = self.canvas.tolist(), self.dose.tolist()
        for row, num_forwards in enumerate(self.num_forwards.tolist()):
            canvas = canvases[row]
            end = next(
                (i for i, token in enumerate(canvas) if token in self.loaded.eos_ids), len(canvas)
            )
            tokens = collapse(
                canvas[:end], slack_id=self.loaded.slack_id, mode=self.config.collapse
            )
            dose = Dose(*doses[row])
            generations.append(
                Generation(
                    text=str(self.loaded.tokenizer.decode(tokens, skip_special_tokens=True)),
                    tokens=tokens,
                    canvas=canvas,
                    num_forwards=num_forwards,
                    num_committed=dose.committed,
                    num_displaced=dose.displaced,
                    dose=dose,
                    steps=self.steps[row] if self.config.trace else None,
                )
            )
        return generations
