"""What does the model propose for the masked cells, and how sure is it? The only place that runs the model.

The output layer is applied to masked cells of the active block alone, a few at a time; nothing here waits for the
device.

Axis letters: ``B`` rows, ``R`` rows that still decode, ``L`` canvas positions, ``M`` masked cells, ``D`` hidden size,
``V`` vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from slackdlm.models.llada import attention_bias
from slackdlm.models.loaded import LoadedModel, logits_of, plain_head
from slackdlm.sampling.config import Block, SamplerConfig, schedule
from slackdlm.sampling.noise import Cells, RowNoise, uniforms
from slackdlm.sampling.passes import CapturedPass, KeyValueCache, can_be_captured
from slackdlm.sampling.strategies import STRATEGIES, gumbel_argmax

# Logits held at a time: enough for efficient products, small beside the output layer.
_CHUNK_ELEMENTS = 2**23
# A GPU reads the whole output layer for each part: fewer cells at a time would wait for its memory.
_CHUNK_ELEMENTS_GPU = 2**25
# On a CPU so few cells times an output layer too large for the cache are twice as fast the other way round.
_FEW_CELLS = 16
_LARGE_HEAD = 2**22


class Proposals(NamedTuple):
    """What the model would write."""

    tokens: Int[Tensor, " M"]
    scores: Float[Tensor, " M"]
    """The strategy's score; the highest are committed first."""
    waits: Bool[Tensor, " M"]
    """Committed after all others, whatever the score: a delayed token."""


class Predictor:
    """Runs the model over a batch of prompts and their canvases.

    Args:
        loaded: The model.
        config: How to decode.
        prompts: Token ids; padded on the left here, which relative positions do not notice.
        noise: The rows' own randomness.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        config: SamplerConfig,
        prompts: Sequence[Sequence[int]],
        noise: RowNoise,
    ) -> None:
        self.loaded = loaded
        self.config = config
        self.noise = noise
        self.device = loaded.device
        ends = loaded.eos_ids if config.delay_end else ()
        slack = (loaded.slack_id,) if config.delay_slack else ()
        delayed = () if STRATEGIES[config.remasking].score is None else (*ends, *slack)
        self.delayed = torch.tensor(delayed, dtype=torch.long, device=self.device)
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), longest), loaded.pad_id, dtype=torch.long)
        mask = torch.ones(len(prompts), longest + config.canvas_length, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
            mask[row, : longest - len(prompt)] = False
        self.prompts = ids.to(self.device)
        bias = attention_bias(mask)
        self.bias = None if bias is None else bias.to(self.device)
        self._cached_rows = np.zeros(0, dtype=np.int64)
        self._is_capturable = can_be_captured(loaded)
        self._captured: CapturedPass | None = None
        self._last_shape: torch.Size | None = None
        self.enter(schedule(config)[0])

    def enter(self, block: Block) -> None:
        """Begin a block: what was kept for the last one is forgotten."""
        self._block = block
        self._cache: KeyValueCache | None = None

    def propose(
        self, canvas: Int[Tensor, "B L"], cells: Cells, at: Int64[Tensor, "2 M"]
    ) -> Proposals:
        """Tokens and scores for masked cells of the active block.

        Args:
            canvas: All rows.
            cells: At least one, in ascending order of rows.
            at: Their rows and positions on the device.
        """
        hidden, unprompted = self._hidden(canvas, cells, at)
        config, model = self.config, self.loaded.model
        num_rows = plain_head(model.get_output_embeddings()).out_features
        strategy = STRATEGIES[config.remasking]
        tokens: list[Tensor] = []
        scores: list[Tensor] = []
        for part in _chunks(len(cells.rows), num_rows, self.device):
            logits = _logits(model, hidden[part])
            if unprompted is not None:
                without = _logits(model, unprompted[part])
                logits = logits.sub_(without).mul_(config.guidance + 1).add_(without)
            if config.forbid_end_of_text:
                logits[:, self.loaded.pad_id] = -torch.inf
            chosen = self._choose(logits, Cells(cells.rows[part], cells.positions[part]))
            tokens.append(chosen)
            if strategy.score is None:
                continue
            score = strategy.score(logits, chosen)
            if self.delayed.numel():  # the others are weighed without their share
                waits = torch.isin(chosen, self.delayed)
                logits.index_fill_(1, self.delayed, -torch.inf)
                score = torch.where(waits, score, strategy.score(logits, chosen))
            scores.append(score)
        if strategy.score is None:
            scores.append(self._uniforms(cells, 1)[:, 0].float())
        proposed = torch.cat(tokens)
        return Proposals(proposed, torch.cat(scores), torch.isin(proposed, self.delayed))

    def _choose(self, logits: Float[Tensor, "M V"], cells: Cells) -> Int[Tensor, " M"]:
        """A token for each cell, never the mask; the logits are given back as they were."""
        temperature = self.config.temperature
        drawn = self._uniforms(cells, logits.shape[1]) if temperature > 0 else None
        of_mask = logits[:, self.loaded.mask_id].clone()
        logits[:, self.loaded.mask_id] = -torch.inf
        chosen = gumbel_argmax(logits, drawn, temperature=temperature)
        logits[:, self.loaded.mask_id] = of_mask
        return chosen

    def _uniforms(self, cells: Cells, width: int) -> Float[Tensor, "M width"]:
        if self.device.type == "cpu" or width == 1:
            return self.noise.draw(cells, width).to(self.device)
        return uniforms(torch.from_numpy(self.noise.keys(cells)).to(self.device), width)

    def _hidden(
        self, canvas: Int[Tensor, "B L"], cells: Cells, at: Int64[Tensor, "2 M"]
    ) -> tuple[Float[Tensor, "M D"], Float[Tensor, "M D"] | None]:
        """What the head reads at the cells, and the same without the prompt if there is guidance."""
        rows = np.unique(cells.rows) if self._cache is None else self._cached_rows
        states, first = self._run(canvas, rows)
        local, positions = at[0], at[1] - first
        if len(rows) < len(canvas):
            local = torch.from_numpy(np.searchsorted(rows, cells.rows)).to(self.device)
        hidden = states[local, positions]
        if self.config.guidance == 0:
            return hidden, None
        return hidden, states[local + len(rows), positions]

    def _run(
        self, canvas: Int[Tensor, "B L"], rows: Int64[np.ndarray, " R"]
    ) -> tuple[Float[Tensor, "R2 P D"], int]:
        """Hidden states of canvas positions from the one returned on; with guidance the rows come twice."""
        inputs = torch.cat([self.prompts, canvas], dim=1)
        prompt_length, bias = self.prompts.shape[1], self.bias
        if len(rows) < len(inputs):
            which = torch.from_numpy(rows).to(self.device)
            inputs, bias = inputs[which], None if bias is None else bias[which]
        if self.config.guidance > 0:
            unprompted = inputs.clone()
            unprompted[:, :prompt_length] = self.loaded.mask_id
            inputs = torch.cat([inputs, unprompted])
            bias = None if bias is None else torch.cat([bias, bias])
        if self.config.cache == "none":
            return self._evaluate(inputs, bias)[:, prompt_length:], 0
        if self._cache is None:
            self._cache = KeyValueCache(inputs.shape[1])
            self._cached_rows = rows
            return self._evaluate(inputs, bias, store=self._cache)[:, prompt_length:], 0
        first = self._block.first
        end = self._block.end if self.config.cache == "dual" else self.config.canvas_length
        part = inputs[:, prompt_length + first : prompt_length + end]
        self._cache.first = prompt_length + first
        return self._evaluate(part, bias, store=self._cache), first

    def _evaluate(
        self,
        inputs: Int[Tensor, "R P"],
        bias: Bool[Tensor, "R 1 1 K"] | None,
        store: KeyValueCache | None = None,
    ) -> Float[Tensor, "R P D"]:
        if store is not None or not self._is_capturable:
            return self._forward(inputs, bias, store)
        if self._captured is not None and self._captured.fits(inputs):
            return self._captured(inputs, bias)
        self._captured = None  # first, so that its memory serves the next
        if inputs.shape != self._last_shape:  # the one pass of a shape may be its last
            self._last_shape = inputs.shape
            return self._forward(inputs, bias)
        self._captured = CapturedPass(self._forward, inputs, bias)
        return self._captured(inputs, bias)

    def _forward(
        self,
        inputs: Int[Tensor, "R P"],
        bias: Bool[Tensor, "R 1 1 K"] | None,
        store: KeyValueCache | None = None,
    ) -> Float[Tensor, "R P D"]:
        kept = {} if store is None else {"store": store}  # encoders know no store
        output = self.loaded.model(input_ids=inputs, attention_mask=bias, logits=False, **kept)
        return output.last_hidden_state


def _logits(
    model: PreTrainedModel | PeftModel, hidden: Float[Tensor, "M D"]
) -> Float[Tensor, "M V"]:
    """The output layer in float32."""
    head: Any = model.get_output_embeddings()
    few = len(hidden) <= _FEW_CELLS and hidden.device.type == "cpu"
    if few and type(head) is nn.Linear and head.weight.numel() >= _LARGE_HEAD:
        logits = (head.weight @ hidden.T).T.float().contiguous()
        return logits if head.bias is None else logits.add_(head.bias)  # pyright: ignore[reportUnnecessaryComparison]
    return logits_of(model, hidden).float()


def _chunks(num_cells: int, vocab_size: int, device: torch.device) -> Iterator[slice]:
    elements = _CHUNK_ELEMENTS if device.type == "cpu" else _CHUNK_ELEMENTS_GPU
    size = max(1, elements // vocab_size)
    return (slice(start, start + size) for start in range(0, num_cells, size))
