"""What is the loss of a batch? The network's forward pass with the objective inside it."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from slackdlm.models.loaded import OutputLayer, output_layer
from slackdlm.objectives.alignment import Alignment, alignment_of
from slackdlm.objectives.fused_linear import fused_linear_slack_ctc_loss
from slackdlm.training.stream import CanvasSpec


def sample_losses(
    model: nn.Module,
    network: PreTrainedModel | PeftModel,
    batch: dict[str, Tensor],
    *,
    spec: CanvasSpec,
    bf16: bool = False,
) -> Float[Tensor, " B"]:
    """Weighted loss of each sample of a batch: ``loss_b / (p_b * length)``, nats per position.

    The output layer works inside the forward pass of ``model``, on the hidden states: wrappers that
    gather sharded weights, free them again and reduce gradients do so around a forward pass, and a
    weight used after it would be gone (FSDP, ZeRO-3) or counted as unused (DDP).

    Args:
        model: The network, or what a distributed engine wrapped around it.
        network: Gives ``last_hidden_state`` for ``(input_ids, attention_mask, logits=False)``.
        batch: From :func:`slackdlm.training.stream.collate`.
        spec: The arm.
        bf16: Whether the output layer multiplies in bfloat16; the loss itself stays in float32.

    Returns:
        One loss per sample.
    """

    def loss_of(output: Any) -> Float[Tensor, " B"]:
        hidden = _canvas_states(output, batch, bf16=bf16)
        return _losses(hidden, output_layer(network, slack_id=spec.slack_id), batch, spec)

    with _in_forward(network, loss_of):
        return model(batch["input_ids"], batch["attention_mask"], logits=False)


@torch.no_grad()
def evaluated_samples(
    network: PreTrainedModel | PeftModel,
    batch: dict[str, Tensor],
    *,
    spec: CanvasSpec,
    bf16: bool = False,
) -> tuple[Float[Tensor, " B"], Alignment]:
    """:func:`sample_losses`, and what the model makes of the slack, in one forward pass."""

    def both(output: Any) -> tuple[Float[Tensor, " B"], Alignment]:
        hidden = _canvas_states(output, batch, bf16=bf16)
        head = output_layer(network, slack_id=spec.slack_id)
        alignment = alignment_of(
            hidden,
            head.weight.to(hidden.dtype),
            batch["noisy"],
            batch["targets"],
            batch["ctc_lengths"],
            batch["target_lengths"],
            mask_id=spec.mask_id,
            slack_id=spec.slack_id,
            slack_row=None if head.slack_row is None else head.slack_row.to(hidden.dtype),
        )
        return _losses(hidden, head, batch, spec), alignment

    with _in_forward(network, both):
        return network(batch["input_ids"], batch["attention_mask"], logits=False)


def _canvas_states(output: Any, batch: dict[str, Tensor], *, bf16: bool) -> Float[Tensor, "B L D"]:
    hidden: Tensor = output.last_hidden_state[:, -batch["noisy"].shape[1] :]
    return hidden.to(torch.bfloat16) if bf16 else hidden


def _losses(
    hidden: Float[Tensor, "B L D"],
    head: OutputLayer,
    batch: dict[str, Tensor],
    spec: CanvasSpec,
) -> Float[Tensor, " B"]:
    return fused_linear_slack_ctc_loss(
        hidden,
        head.weight,
        batch["noisy"],
        batch["targets"],
        batch["ctc_lengths"],
        batch["target_lengths"],
        mask_id=spec.mask_id,
        slack_id=spec.slack_id,
        clean=batch["clean"],
        ctc_weight=spec.ctc_weight,
        ce_weights=batch["ce_weights"],
        sample_weights=batch["loss_weights"],
        slack_row=head.slack_row,
    )


@contextmanager
def _in_forward(network: nn.Module, function: Any) -> Generator[None]:
    """While it lasts, the network returns ``function`` of its output."""
    handle = network.register_forward_hook(lambda *call: function(call[-1]), prepend=True)
    try:
        yield
    finally:
        handle.remove()
