"""Which model is this? Hashes of what decides its output, wherever it was loaded from."""

import hashlib
from collections.abc import Iterable
from typing import TypedDict

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor

from slackdlm.models.loaded import LoadedModel

# What of an adapter's configuration changes the output of given weights.
_SHAPING = "peft_type r lora_alpha use_rslora use_dora alpha_pattern rank_pattern".split()


class ModelIdentity(TypedDict):
    """What the rows of ``answers.jsonl`` say of the model."""

    name: str
    """Where it came from; decides nothing."""
    sha256: str
    """Of the weights, names and types, without any adapter."""
    adapter_sha256: str | None
    """Of the adapter's weights and configuration; ``None`` without one."""
    tokenizer_sha256: str
    """Of the tokenizer's whole definition, and of its chat template where it has one."""


def model_identity(loaded: LoadedModel) -> ModelIdentity:
    """Name and hashes of a model; the base's hash is the same with an adapter on it."""
    weights, adapter = loaded.model.state_dict(), None
    if isinstance(loaded.model, PeftModel):
        adapter, weights = _split(loaded.model)
    template = loaded.tokenizer.chat_template
    tokenizer = loaded.tokenizer.backend_tokenizer.to_str() + str(template or "")
    return ModelIdentity(
        name=loaded.name,
        sha256=weights_sha256(weights.items()),
        adapter_sha256=adapter,
        tokenizer_sha256=hashlib.sha256(tokenizer.encode()).hexdigest(),
    )


def weights_sha256(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Hash of named tensors: names, shapes, types and every byte."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights, key=lambda item: item[0]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _split(model: PeftModel) -> tuple[str, dict[str, Tensor]]:
    """Hash of the adapter, and the weights under the names they have without it."""
    name = str(model.active_adapter)
    adapter = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    config = sorted(
        (k, str(v)) for k, v in model.peft_config[name].to_dict().items() if k in _SHAPING
    )
    digest = hashlib.sha256(f"{config} {weights_sha256(adapter.items())}".encode()).hexdigest()
    base: dict[str, Tensor] = {}
    for key, tensor in model.state_dict().items():
        named = f"{key}.".replace(f".{name}.", ".").removesuffix(".")
        # A tied output layer holds the trained rows again, which are not in the adapter's file.
        is_adapter = f".trainable_tokens_delta.{name}" in key or f"modules_to_save.{name}." in key
        if named in adapter or is_adapter:
            continue
        plain = key.removeprefix("base_model.model.")
        for wrapper in (".token_adapter.", ".base_layer.", ".original_module."):
            plain = plain.replace(wrapper, ".")
        base[plain] = tensor
    return digest, base
