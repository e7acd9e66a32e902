"""The network of a recipe that is all shapes, for :mod:`slackdlm.training.plan`, and what its weights weigh."""

from dataclasses import asdict
from typing import cast

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from slackdlm.models.adapter import apply_adapter, new_adapter
from slackdlm.models.hub import locate
from slackdlm.models.llada import LLaDAModelLM
from slackdlm.models.loaded import head_name
from slackdlm.models.loading import load_model
from slackdlm.training.config import Recipe
from slackdlm.training.prepare import new_config

Network = PreTrainedModel | PeftModel


class FourBitLinear(nn.Linear):
    """Shapes and types of bitsandbytes' layer; the weight is what it is multiplied with."""

    def forward(self, input: Tensor) -> Tensor:
        """As bitsandbytes: in the type of the weight, whatever autocast says, and back."""
        kind = self.weight.dtype
        bias = None if self.bias is None else self.bias.to(kind)  # pyright: ignore[reportUnnecessaryComparison]
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.to(kind), self.weight, bias).to(input.dtype)


def empty_network(recipe: Recipe) -> Network:
    """The network of a recipe on the meta device: shapes and types, no numbers.

    Raises:
        ConfigError: If the model is wrong.
        CheckpointError: If its configuration cannot be read, or its adapter does not fit.
    """
    model, shape = recipe.model, recipe.model.from_scratch
    if shape is None:
        loaded = load_model(str(model.path), dtype=model.dtype, device="meta")
        network = loaded.model
        if model.quantization is not None:
            _quantise(cast("PreTrainedModel", network))
        if model.adapter is not None:
            adapted = apply_adapter(
                cast("PreTrainedModel", network), locate(model.adapter), slack_id=loaded.slack_id
            )
            adapted.set_adapter("default")  # It comes frozen; this makes it trainable.
            return adapted
        if model.lora is not None:
            with torch.device("meta"):  # else the adapter's weights are drawn
                loaded = new_adapter(loaded, **asdict(model.lora))
        return loaded.model
    with torch.device("meta"):
        return LLaDAModelLM(new_config(recipe, shape, vocab_size=shape.vocab_size))


def weight_bytes(network: nn.Module) -> int:
    """All weights; those in 4 bits with their scales."""
    quantised = {id(layer.weight) for layer in _four_bit_layers(network)}
    return sum(
        nf4_bytes(p.numel()) if id(p) in quantised else p.numel() * p.element_size()
        for p in network.parameters()
    )


def nf4_bytes(num_weights: int) -> int:
    """A matrix in NF4 with double quantisation, as bitsandbytes keeps it.

    4 bits a weight, 8 bits a block of 64 weights, 32 bits a block of 256 of those scales: 4.127 bits
    a weight. Each matrix has the 16 and the 256 values that the codes stand for and the scales' mean.

    References:
        Dettmers et al., 2023 (QLoRA), section 3.
    """
    scales = -(-num_weights // 64)
    return -(-num_weights // 2) + scales + 4 * -(-scales // 256) + 4 * (16 + 256 + 1)


def dequantised(network: nn.Module) -> int:
    """Bytes of the largest 4-bit layer in the type it is multiplied in, that of ``model.dtype``."""
    layers = _four_bit_layers(network)
    return max((m.weight.numel() * m.weight.element_size() for m in layers), default=0)


def _quantise(model: PreTrainedModel) -> None:
    """All linear layers but the output layer, as :func:`slackdlm.models.loading.load_model` does."""
    head = head_name(model)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name != head:
            layer.__class__ = FourBitLinear


def _four_bit_layers(network: nn.Module) -> list[FourBitLinear]:
    return [layer for layer in network.modules() if isinstance(layer, FourBitLinear)]
