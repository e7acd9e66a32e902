"""What is the loss of a batch? The network's forward pass with the objective inside it."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from slackdlm.models.loaded import OutputLayer, forward_replaced, output_layer
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

    The loss is computed inside the forward passes of ``model`` and of its output layer, in place of
    the logits: engines that gather sharded weights, free them again and reduce gradients do so around
    the forward pass of the module that owns them, and a weight used elsewhere would be in pieces
    (FSDP, ZeRO-3) or counted as unused (DDP).

    Args:
        model: The network, or what a distributed engine wrapped around it.
        network: Gives ``last_hidden_state`` for ``(input_ids, attention_mask, logits=False)``.
        batch: From :func:`slackdlm.training.stream.collate`.
        spec: The arm.
        bf16: Autocast to bfloat16, the output layer included; the loss itself stays in float32. Not
            every engine does that around its forward pass.

    Returns:
        One loss per sample.
    """

    def loss_of(hidden: Float[Tensor, "B L D"]) -> Float[Tensor, " B"]:
        return _losses(hidden, output_layer(network, slack_id=spec.slack_id), batch, spec)

    with _in_output_layer(network, loss_of, batch, bf16=bf16):
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

    def both(hidden: Float[Tensor, "B L D"]) -> tuple[Float[Tensor, " B"], Alignment]:
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

    with _in_output_layer(network, both, batch, bf16=bf16):
        return network(batch["input_ids"], batch["attention_mask"], logits=False)


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
def _in_output_layer(
    network: nn.Module,
    function: Callable[[Float[Tensor, "B L D"]], Any],
    batch: dict[str, Tensor],
    *,
    bf16: bool,
) -> Generator[None]:
    """While it lasts, the network returns ``function`` of the canvas' hidden states, autocast if ``bf16``."""
    parts: Any = network
    head: nn.Module = parts.get_output_embeddings()

    def through_head(*call: Any) -> Any:
        hidden: Tensor = call[-1].last_hidden_state[:, -batch["noisy"].shape[1] :]
        with forward_replaced(head, function):
            return head(hidden.to(torch.bfloat16) if bf16 else hidden)

    handle = network.register_forward_hook(through_head, prepend=True)
    try:
        with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=bf16):
            yield
    finally:
        handle.remove()
