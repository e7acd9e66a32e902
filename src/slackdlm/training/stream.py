"""Which canvas does the model see at draw n? A pure function of the recipe and n.

Resuming, workers, prefetching, accumulation and the number of processes therefore cannot change a
run. Order, mask levels and slack come from three separate streams: arms with the same seeds share
the first two whatever their slack.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from slackdlm.canvas import draw_noise, draw_num_slack, insert_slack
from slackdlm.training.data import Sample

NUM_EVAL_LEVELS = 4
"""Noise levels per evaluation sample. Ours."""
_EVAL_SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class CanvasSpec:
    """How responses are written on canvases in one arm."""

    canvas_length: int
    """``L``, the same in every arm."""
    slack_ratio: tuple[float, float]
    """Range of the slack budget, as a share of the response tokens."""
    slack_region: Literal["content", "canvas"]
    """Whether slack may fall into the padding too."""
    ctc_weight: float
    """``w`` of ``(1 - w) CE + w slack_ctc``."""
    loss_norm: Literal["sequence", "token"]
    """How the loss is divided."""
    eps: float
    """Smallest masking rate."""
    mask_id: int
    """Id of the mask."""
    slack_id: int
    """Id of ``<slack>``."""
    pad_id: int
    """Id of the end-of-text padding behind the response."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """One noised canvas and all that its loss needs."""

    sample_id: int
    """Index of the sample."""
    prompt: Int[Tensor, " P"]
    """Prompt ids."""
    noisy: Int[Tensor, " L"]
    """The canvas as the model sees it."""
    clean: Int[Tensor, " L"]
    """The canvas before masking: content with its slack, then padding."""
    target: Int[Tensor, " S"]
    """What the first ``ctc_length`` positions must collapse to."""
    ctc_length: int
    """Positions of the alignment problem: content and slack, or the whole canvas."""
    loss_weight: float
    """What the sample's loss is multiplied with before the mean over the global batch."""
    target_length: int
    """Response tokens, padding excluded, in either region."""


def seeded_generator(*key: str | int) -> torch.Generator:
    """A CPU generator whose seed is a hash of the key, so that neighbouring keys share nothing."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def loss_weight(
    rate: float,
    *,
    loss_norm: Literal["sequence", "token"],
    supervised_length: int,
    mean_supervised_length: float,
) -> float:
    """Weight of one sample's loss in the mean over the global batch: ``1 / (p * length)``.

    Args:
        rate: ``p``, the masking rate of the sample.
        loss_norm: ``sequence`` divides by the sample's own length, as LLaDA; ``token`` by the mean
            length of the global batch, which makes the mean a global sum by a global count.
        supervised_length: Supervised positions of this sample, padding included.
        mean_supervised_length: The same, averaged over the global batch.

    Returns:
        The weight, above 0.

    References:
        Nie et al., 2025 (LLaDA), GUIDELINES.md of its repository, for ``sequence``.
    """
    length = supervised_length if loss_norm == "sequence" else mean_supervised_length
    return 1.0 / (rate * length)


def draw_canvas(
    sample: Sample,
    spec: CanvasSpec,
    *,
    sample_id: int,
    noise_generator: torch.Generator,
    slack_generator: torch.Generator,
    t: float | None = None,
) -> Draw:
    """Write one response on a canvas, pad it and mask it.

    Args:
        sample: Prompt and response; the response fits on the canvas.
        spec: The arm.
        sample_id: Recorded in the result.
        noise_generator: Time and mask levels; consumed alike in every arm.
        slack_generator: Slack budget and places.
        t: Diffusion time; drawn if not given.

    Returns:
        The draw. Its target is the response (``slack_region: content``), or the response and its
        padding.

    Raises:
        ConfigError: If the response is longer than the canvas or holds a slack.
    """
    length, response = spec.canvas_length, sample.response
    num_slack = draw_num_slack(
        response.numel(),
        slack_ratio=spec.slack_ratio,
        room=length - response.numel(),
        generator=slack_generator,
    )
    num_padding = length - num_slack - response.numel()
    padding = torch.full((num_padding,), spec.pad_id, dtype=response.dtype)
    target = response if spec.slack_region == "content" else torch.cat([response, padding])
    written = insert_slack(target, num_slack, slack_id=spec.slack_id, generator=slack_generator)
    clean = torch.cat([written, padding])[:length]
    noise = draw_noise(length, eps=spec.eps, generator=noise_generator, t=t)
    return Draw(
        sample_id=sample_id,
        prompt=sample.prompt,
        noisy=clean.masked_fill(noise.masked, spec.mask_id),
        clean=clean,
        target=target,
        ctc_length=written.numel(),
        loss_weight=loss_weight(
            noise.rate,
            loss_norm=spec.loss_norm,
            supervised_length=length,
            mean_supervised_length=length,
        ),
        target_length=response.numel(),
    )


class TrainStream(Dataset[Draw]):
    """All draws of a run, in order: item ``n`` belongs to optimizer step ``n // batch_size``."""

    def __init__(
        self,
        samples: Sequence[Sample],
        spec: CanvasSpec,
        *,
        num_draws: int,
        seed: int,
        data_seed: int,
    ) -> None:
        self.samples = samples
        self.spec = spec
        self.num_draws = num_draws
        self.seed = seed
        self.data_seed = data_seed

    def __len__(self) -> int:
        return self.num_draws

    def sample_id(self, n: int) -> int:
        """Index of the sample of draw ``n``: every epoch is one permutation of all samples."""
        epoch, place = divmod(n, len(self.samples))
        return _permutation(len(self.samples), self.data_seed, epoch)[place]

    def __getitem__(self, index: int) -> Draw:
        sample_id = self.sample_id(index)
        return draw_canvas(
            self.samples[sample_id],
            self.spec,
            sample_id=sample_id,
            noise_generator=seeded_generator("noise", self.seed, index, sample_id),
            slack_generator=seeded_generator("slack", self.seed, index, sample_id),
        )


class EvalStream(Dataset[Draw]):
    """Fixed draws of the evaluation loss: times on one even grid over all samples, fixed masks.

    Neither depends on the recipe's seeds, so runs and arms are measured on the same noise.
    """

    def __init__(self, samples: Sequence[Sample], spec: CanvasSpec) -> None:
        self.samples = samples
        self.spec = spec

    def __len__(self) -> int:
        return len(self.samples) * NUM_EVAL_LEVELS

    def __getitem__(self, index: int) -> Draw:
        sample_id, level = divmod(index, NUM_EVAL_LEVELS)
        return draw_canvas(
            self.samples[sample_id],
            self.spec,
            sample_id=sample_id,
            noise_generator=seeded_generator("eval noise", _EVAL_SEED, index),
            slack_generator=seeded_generator("eval slack", _EVAL_SEED, index),
            t=(level + (sample_id + 0.5) / len(self.samples)) / NUM_EVAL_LEVELS,
        )


def collate(draws: Sequence[Draw], *, spec: CanvasSpec) -> dict[str, Tensor]:
    """A batch: prompts padded on the left, the canvas in the last ``L`` columns of every row.

    Args:
        draws: At least one, drawn for this arm.
        spec: The arm.

    Returns:
        ``input_ids`` and ``attention_mask`` ``[B, P + L]`` (0 on prompt padding) for the model; the
        fields of :class:`Draw` stacked for the loss, and ``ce_weights`` ``[B, L]``: ``1 - w`` inside
        the alignment problem and 1 on the padding behind it.
    """
    prompt_length = max(draw.prompt.numel() for draw in draws)
    target_length = max(draw.target.numel() for draw in draws)
    shape = (len(draws), prompt_length + spec.canvas_length)
    input_ids = torch.full(shape, spec.pad_id, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    targets = torch.full((len(draws), target_length), spec.pad_id, dtype=torch.long)
    for row, draw in enumerate(draws):
        start = prompt_length - draw.prompt.numel()
        input_ids[row, start:prompt_length] = draw.prompt
        input_ids[row, prompt_length:] = draw.noisy
        attention_mask[row, start:] = 1
        targets[row, : draw.target.numel()] = draw.target
    ctc_lengths = torch.tensor([draw.ctc_length for draw in draws])
    inside = torch.arange(spec.canvas_length) < ctc_lengths[:, None]
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "noisy": torch.stack([draw.noisy for draw in draws]),
        "clean": torch.stack([draw.clean for draw in draws]),
        "targets": targets,
        "ctc_lengths": ctc_lengths,
        "target_lengths": torch.tensor([draw.target.numel() for draw in draws]),
        "ce_weights": 1.0 - spec.ctc_weight * inside.float(),
        "loss_weights": torch.tensor([draw.loss_weight for draw in draws]),
        "sample_ids": torch.tensor([draw.sample_id for draw in draws]),
    }


@lru_cache(maxsize=4)
def _permutation(num_samples: int, data_seed: int, epoch: int) -> list[int]:
    generator = seeded_generator("order", data_seed, epoch)
    return torch.randperm(num_samples, generator=generator).tolist()
