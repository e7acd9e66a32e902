"""What is a loaded model? The network, its tokenizer, the ids that have a meaning, and the head."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from slackdlm.models.record import TrainingRecord


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
    folder: Path | None = None
    """Where the weights were read, an adapter's aside; None: nowhere."""

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""
        return next(self.model.parameters()).device


class FusedInputs(NamedTuple):
    """A plain linear output layer and what it reads: the logits are ``hidden @ weight.T``."""

    hidden: Float[Tensor, "B L D1"]
    """With a bias (encoders) the last feature here is 1, and it is the weight's last column."""
    weight: Float[Tensor, "V D1"]
    """As in the output layer, but for the row of ``<slack>`` if there is a ``slack_row``."""
    slack_row: Float[Tensor, " D1"] | None
    """The row of ``<slack>`` where an adapter trains it under a frozen layer; else None.

    Joined to the weight it would cost a copy of the whole layer, and a gradient of that size.
    """


def logits_of(
    model: PreTrainedModel | PeftModel, hidden: Float[Tensor, "M D"]
) -> Float[Tensor, "M V"]:
    """The output layer itself, with whatever an adapter has put on it, applied to hidden states."""
    head: Any = model.get_output_embeddings()
    return head(hidden[None])[0]  # some adapters want a batch of sequences


def head_name(model: PreTrainedModel) -> str:
    """The full name of the output layer, which may share its last part with other layers."""
    head = model.get_output_embeddings()
    return next(name for name, module in model.named_modules() if module is head)


def plain_head(head: Any) -> nn.Linear:
    """The linear layer that an output layer is, or that lies under an adapter."""
    return next(m for m in head.modules() if isinstance(m, nn.Linear))


def fused_inputs(
    model: PreTrainedModel | PeftModel, hidden: Float[Tensor, "B L D"], *, slack_id: int
) -> FusedInputs | None:
    """What the fused loss takes; None if an adapter makes the output layer more than a matrix."""
    plain = _plain_layer(model.get_output_embeddings(), slack_id)
    if plain is None:
        return None
    head, row = plain
    weight, bias = head.weight, head.bias
    if bias is None:  # pyright: ignore[reportUnnecessaryComparison] - it may be
        return FusedInputs(hidden, weight, row)
    hidden = torch.cat([hidden, torch.ones_like(hidden[..., :1])], dim=-1)
    if row is not None:
        row = torch.cat([row, bias[[slack_id]].to(row.dtype)])
    return FusedInputs(hidden, torch.cat([weight, bias[:, None]], dim=1), row)


def has_plain_head(model: PreTrainedModel | PeftModel, *, slack_id: int) -> bool:
    """Whether the output layer is a matrix, the row of ``<slack>`` aside."""
    return _plain_layer(model.get_output_embeddings(), slack_id) is not None


def _plain_layer(head: Any, slack_id: int) -> tuple[nn.Linear, Tensor | None] | None:
    """The linear layer and the row that an adapter trains of it, if there is no more to it."""
    row: Tensor | None = None
    if isinstance(head, TrainableTokensWrapper):
        layer: Any = head.token_adapter
        head, on = layer.base_layer, not (layer.merged or layer.disable_adapters)
        for adapter in layer.active_adapters if on else []:
            if row is not None or list(layer.token_indices[adapter]) != [slack_id]:
                return None
            row = layer.trainable_tokens_delta[adapter][0]
    is_plain = isinstance(head, nn.Linear) and not isinstance(head, BaseTunerLayer)
    return (head, row) if is_plain else None


def recompute_activations(model: PreTrainedModel | PeftModel) -> None:
    """From now on each block computes its activations again in the backward pass."""
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


@contextmanager
def in_evaluation_mode(network: nn.Module) -> Generator[None]:
    """Without dropout while it lasts, then in the mode it was in."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
