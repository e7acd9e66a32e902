"""What is the loss of a batch? The network's forward pass with the objective inside it."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from slackdlm.models.loaded import forward_replaced, fused_inputs, plain_head
from slackdlm.objectives.alignment import Alignment, alignment_of
from slackdlm.objectives.checks import Terms
from slackdlm.objectives.fused_linear import fused_loss
from slackdlm.objectives.through_head import Head, Reading, losses_of, read_through
from slackdlm.objectives.vocabulary_pass import Layer
from slackdlm.training.draw import CanvasSpec


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
        batch: From :func:`slackdlm.training.draw.collate`.
        spec: The arm.
        bf16: Autocast to bfloat16, the output layer included; the loss itself stays in float32. Not
            every engine does that around its forward pass.

    Returns:
        One loss per sample.
    """

    def loss_of(head: Head, hidden: Float[Tensor, "B L D"]) -> Float[Tensor, " B"]:
        inputs = fused_inputs(network, hidden, slack_id=spec.slack_id)
        if inputs is None:
            return losses_of(_read(head, hidden, network, batch, spec))
        layer = Layer(inputs.hidden, inputs.weight, inputs.slack_row)
        return fused_loss(layer, _terms(batch, spec))

    with _in_output_layer(network, loss_of, batch, bf16=bf16):
        return model(batch["input_ids"], batch["attention_mask"], logits=False)


Readable: TypeAlias = PreTrainedModel | PeftModel


def read_batch(
    model: nn.Module, network: Readable, batch: dict[str, Tensor], *, spec: CanvasSpec, bf16: bool
) -> Reading:
    """What a forward pass says of a batch: its lattice columns and log-probabilities, as for the loss."""

    def reading_of(head: Head, hidden: Float[Tensor, "B L D"]) -> Reading:
        return _read(head, hidden, network, batch, spec)

    with _in_output_layer(network, reading_of, batch, bf16=bf16):
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

    def both(head: Head, hidden: Float[Tensor, "B L D"]) -> tuple[Float[Tensor, " B"], Alignment]:
        reading = _read(head, hidden, network, batch, spec)
        return losses_of(reading), alignment_of(reading)

    with _in_output_layer(network, both, batch, bf16=bf16):
        return network(batch["input_ids"], batch["attention_mask"], logits=False)


def _read(
    head: Head,
    hidden: Float[Tensor, "B L D"],
    network: PreTrainedModel | PeftModel,
    batch: dict[str, Tensor],
    spec: CanvasSpec,
) -> Reading:
    vocab_size = plain_head(network.get_output_embeddings()).out_features
    return read_through(head, hidden, _terms(batch, spec), vocab_size=vocab_size)


def _terms(batch: dict[str, Tensor], spec: CanvasSpec) -> Terms:
    """The batch as the losses call its parts."""
    return Terms(
        canvas=batch["noisy"],
        targets=batch["targets"],
        canvas_lengths=batch["ctc_lengths"],
        target_lengths=batch["target_lengths"],
        mask_id=spec.mask_id,
        slack_id=spec.slack_id,
        clean=batch["clean"],
        ctc_weight=spec.objective.weight,
        ce_weights=batch["ce_weights"],
        sample_weights=batch["loss_weights"],
    )


@contextmanager
def _in_output_layer(
    network: nn.Module,
    function: Callable[[Head, Float[Tensor, "B L D"]], Any],
    batch: dict[str, Tensor],
    *,
    bf16: bool,
) -> Generator[None]:
    """While it lasts, the network returns ``function`` of its output layer and the canvas' hidden states.

    All of it is autocast if ``bf16``.
    """
    parts: Any = network
    head: nn.Module = parts.get_output_embeddings()

    def through_head(*call: Any) -> Any:
        hidden: Tensor = call[-1].last_hidden_state[:, -batch["noisy"].shape[1] :]
        with forward_replaced(head, partial(function, head.forward)):
            return head(hidden.to(torch.bfloat16) if bf16 else hidden)

    handle = network.register_forward_hook(through_head, prepend=True)
    try:
        with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=bf16):
            yield
    finally:
        handle.remove()
