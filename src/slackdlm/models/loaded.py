"""What is a loaded model? The network, its tokenizer, the ids that have a meaning, and the head."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from peft import PeftModel
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from slackdlm.models.training_record import TrainingRecord


@dataclass(frozen=True)
class LoadedModel:
    """A model with everything needed to talk to it."""

    model: PreTrainedModel | PeftModel
    """``model(input_ids, attention_mask).logits`` are aligned with the positions."""
    tokenizer: PreTrainedTokenizerFast
    """The tokenizer of these ids."""
    mask_id: int
    """Stands where a token is to be predicted; never part of a text."""
    slack_id: int
    """Stands where nothing is said; dropped by ``slackdlm.collapse``."""
    eos_ids: tuple[int, ...]
    """Every id that ends a response: end of text (encoders: the separator) and of turn."""
    pad_id: int
    """The end of text as padding; the first of ``eos_ids``."""
    name: str
    """Where it came from; goes into result files."""
    max_length: int
    """Longest input in tokens, prompt and canvas together."""
    record: TrainingRecord | None = None
    """The canvases it was last trained on, where its folder says so."""

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""
        return next(self.model.parameters()).device


class OutputLayer(NamedTuple):
    """The output layer's weight, and what of it is trained on its own."""

    weight: Float[Tensor, "V D"]
    """As :func:`head_weight`, but for the row of ``<slack>`` if there is a ``slack_row``."""
    slack_row: Float[Tensor, " D"] | None
    """The row of ``<slack>`` where an adapter trains it under a frozen layer; else None."""


def head_weight(model: PreTrainedModel | PeftModel) -> Float[Tensor, "V D"]:
    """The output layer's weight: ``hidden @ weight.T`` are the logits.

    A bias (encoders have one) is its last column, and the last feature of ``hidden`` is then 1; the
    gradient of the column is the gradient of the bias.
    """
    head: Any = model.get_output_embeddings()
    return _with_bias(head, head.weight)


def output_layer(model: PreTrainedModel | PeftModel, *, slack_id: int) -> OutputLayer:
    """:func:`head_weight` for the loss: a trained row of ``<slack>`` comes on its own.

    Joined to the weight it would cost a copy of the whole layer, and a gradient of that size.
    """
    head: Any = model.get_output_embeddings()
    layers: list[Any] = [m for m in head.modules() if isinstance(m, TrainableTokensLayer)]
    for layer in layers:  # one or none
        adapters = [] if layer.merged or layer.disable_adapters else layer.active_adapters
        if [list(layer.token_indices[adapter]) for adapter in adapters] == [[slack_id]]:
            base, rows = layer.base_layer, layer.trainable_tokens_delta[adapters[0]]
            row = _with_bias(base, rows, rows=[slack_id])[0]
            return OutputLayer(_with_bias(base, base.weight), row)
    return OutputLayer(head_weight(model), None)


def recompute_activations(model: PreTrainedModel | PeftModel) -> None:
    """From now on each block computes its activations again in the backward pass instead of keeping them."""
    network: Any = model
    # transformers 5.23 renamed it, and warns of the old name.
    new, old = "activation_checkpointing_enable", "gradient_checkpointing_enable"
    enable = getattr(network, new if hasattr(network, new) else old)
    # Re-entrant, a block whose input needs no gradient would give its adapter none.
    enable({"use_reentrant": False})


@contextmanager
def forward_replaced(module: nn.Module, function: Callable[..., Any]) -> Generator[None]:
    """While it lasts, calling the module calls the function, its hooks around it as ever."""
    instance: dict[str, Any] = vars(module)
    before = instance.get("forward")  # a hook of accelerate's, if there is one
    instance["forward"] = function
    try:
        yield
    finally:
        if before is None:
            del instance["forward"]
        else:
            instance["forward"] = before


def _with_bias(
    head: Any, weight: Float[Tensor, "R D"], *, rows: Sequence[int] | None = None
) -> Float[Tensor, "R D1"]:
    original: Any = getattr(head, "original_module", head)  # PEFT's wrapper hides the bias
    bias: Tensor | None = getattr(original, "bias", None)
    if bias is None:
        return weight
    bias = bias if rows is None else bias[list(rows)]
    return torch.cat([weight, bias[:, None].to(weight.dtype)], dim=1)
