"""How does a response stand on a canvas, masked, and what does its loss need? One draw, or a batch.

Everything random comes from generators that are passed in: the noise, the slack and the choice of the
model's alignment have one each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from slackdlm.canvas import draw_noise, draw_num_slack, insert_slack
from slackdlm.models.loaded import LoadedModel
from slackdlm.training.config import ObjectiveConfig
from slackdlm.training.data import Sample

Padding = Literal["fixed", "llada", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CanvasSpec:
    """How responses are written on canvases in one arm."""

    objective: ObjectiveConfig
    """The arm: slack, masking and loss."""
    canvas_length: int
    """``L`` with ``padding: fixed``, the same in every arm; otherwise the longest."""
    padding: Padding = "fixed"
    """What stands behind a response: see ``data.padding``."""
    mask_id: int
    """Id of the mask."""
    slack_id: int
    """Id of ``<slack>``."""
    pad_id: int
    """Id of the end-of-text padding behind the response."""


def canvas_spec(
    loaded: LoadedModel,
    *,
    canvas_length: int,
    objective: ObjectiveConfig,
    padding: Padding = "fixed",
) -> CanvasSpec:
    """How an arm writes canvases for this model."""
    return CanvasSpec(
        objective=objective,
        canvas_length=canvas_length,
        padding=padding,
        mask_id=loaded.mask_id,
        slack_id=loaded.slack_id,
        pad_id=loaded.pad_id,
    )


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
    rate: float
    """``p``, with which each position was masked."""
    loss_weight: float
    """What the sample's loss is multiplied with before the mean over the global batch."""
    target_length: int
    """Response tokens, padding excluded, in either region."""
    uniforms: Float[Tensor, " L"] | None = None
    """In [0, 1), float64: with what the model's alignment is drawn; None if it is random."""


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


def content_length(sample: Sample, spec: CanvasSpec, *, slack_generator: torch.Generator) -> int:
    """Positions of a response and its slack: one number of the generator, the budget, is used.

    Raises:
        ConfigError: If the response is longer than the longest canvas.
    """
    response_length = sample.response.numel()
    return response_length + draw_num_slack(
        response_length,
        slack_ratio=spec.objective.slack_ratio,
        room=spec.canvas_length - response_length,
        generator=slack_generator,
    )


class Generators(NamedTuple):
    """What decides a draw; each is consumed alike in every arm that has it."""

    noise: torch.Generator
    """Time and mask levels."""
    slack: torch.Generator
    """Slack budget and places."""
    alignment: torch.Generator | None = None
    """The model's choice of an alignment; None: slack stays where it was drawn."""


def draw_canvas(
    sample: Sample,
    spec: CanvasSpec,
    generators: Generators,
    *,
    sample_id: int,
    length: int | None = None,
    mean_length: float | None = None,
    t: float | None = None,
) -> Draw:
    """Write one response on a canvas, pad it and mask it.

    Args:
        sample: Prompt and response; the response fits on the canvas.
        spec: The arm.
        generators: All randomness of this draw.
        sample_id: Recorded in the result.
        length: Positions of this canvas, its end-of-text padding included; None: no padding.
        mean_length: The same, averaged over the optimizer step; None: that of this canvas.
        t: Diffusion time; drawn if not given.

    Returns:
        The draw. Its target is the response (``slack_region: content``), or the response and its
        padding.

    Raises:
        ConfigError: If the response is longer than the canvas or holds a slack.
    """
    response = sample.response
    content = content_length(sample, spec, slack_generator=generators.slack)
    length = content if length is None else length
    padding = torch.full((length - content,), spec.pad_id, dtype=response.dtype)
    target = (
        response if spec.objective.slack_region == "content" else torch.cat([response, padding])
    )
    written = insert_slack(
        target, content - response.numel(), slack_id=spec.slack_id, generator=generators.slack
    )
    clean = torch.cat([written, padding])[:length]
    noise = draw_noise(length, eps=spec.objective.eps, generator=generators.noise, t=t)
    uniforms = None
    if generators.alignment is not None:
        uniforms = torch.rand(length, generator=generators.alignment, dtype=torch.float64)
    return Draw(
        sample_id=sample_id,
        prompt=sample.prompt,
        noisy=clean.masked_fill(noise.masked, spec.mask_id),
        clean=clean,
        target=target,
        ctc_length=written.numel(),
        rate=noise.rate,
        loss_weight=loss_weight(
            noise.rate,
            loss_norm=spec.objective.loss_norm,
            supervised_length=length,
            mean_supervised_length=length if mean_length is None else mean_length,
        ),
        target_length=response.numel(),
        uniforms=uniforms,
    )


def collate(draws: Sequence[Draw], *, spec: CanvasSpec) -> dict[str, Tensor]:
    """A batch: prompts padded on the left, canvases from one column on, nothing attends to padding.

    Args:
        draws: At least one, drawn for this arm.
        spec: The arm.

    Returns:
        ``input_ids`` and ``attention_mask`` ``[B, P + L]`` for the model, ``L`` the longest canvas;
        the fields of :class:`Draw` stacked for the loss, and ``ce_weights`` ``[B, L]``: ``1 - w``
        inside the alignment problem, 1 on the padding behind it, 0 behind a shorter canvas; and
        ``uniforms`` where the model places the slack.
    """
    num_positions = max(draw.noisy.numel() for draw in draws)
    prompt_length = max(draw.prompt.numel() for draw in draws)
    target_length = max(draw.target.numel() for draw in draws)
    shape = (len(draws), prompt_length + num_positions)
    input_ids = torch.full(shape, spec.pad_id, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    noisy = torch.full((len(draws), num_positions), spec.pad_id, dtype=torch.long)
    clean = noisy.clone()
    targets = torch.full((len(draws), target_length), spec.pad_id, dtype=torch.long)
    for row, draw in enumerate(draws):
        start = prompt_length - draw.prompt.numel()
        length = draw.noisy.numel()
        input_ids[row, start:prompt_length] = draw.prompt
        input_ids[row, prompt_length : prompt_length + length] = draw.noisy
        attention_mask[row, start : prompt_length + length] = 1
        noisy[row, :length] = draw.noisy
        clean[row, :length] = draw.clean
        targets[row, : draw.target.numel()] = draw.target
    positions = torch.arange(num_positions)
    ctc_lengths = torch.tensor([draw.ctc_length for draw in draws])
    lengths = torch.tensor([draw.noisy.numel() for draw in draws])
    inside = positions < ctc_lengths[:, None]
    on_canvas = positions < lengths[:, None]
    batch = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "noisy": noisy,
        "clean": clean,
        "targets": targets,
        "ctc_lengths": ctc_lengths,
        "target_lengths": torch.tensor([draw.target.numel() for draw in draws]),
        "ce_weights": on_canvas.float() - spec.objective.weight * inside.float(),
        "loss_weights": torch.tensor([draw.loss_weight for draw in draws]),
        "sample_ids": torch.tensor([draw.sample_id for draw in draws]),
    }
    uniforms = [draw.uniforms for draw in draws if draw.uniforms is not None]
    if uniforms:
        batch["uniforms"] = pad_sequence(uniforms, batch_first=True)
    return batch
