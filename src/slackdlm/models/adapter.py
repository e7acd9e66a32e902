"""How does a PEFT adapter get onto a model? From safetensors, checked key by key."""

from pathlib import Path

import torch
from peft import (
    PeftConfig,
    PeftModel,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from transformers import PreTrainedModel

from slackdlm.errors import CheckpointError
from slackdlm.models.checkpoint import read_headers, read_json

_WEIGHTS = "adapter_model.safetensors"


def apply_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The model with an adapter on it, frozen and not merged.

    Args:
        model: The model the adapter was trained on; changed in place.
        folder: Holds ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises:
        CheckpointError: If a file is missing or torn, or the weights do not fit the model.
    """
    read_json(folder / "adapter_config.json")
    if not (folder / _WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder}: expected {_WEIGHTS}, found none (pickled adapters are never loaded); "
            "save the adapter again with save_pretrained"
        )
    read_headers(folder / _WEIGHTS)
    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    try:
        weights = load_peft_weights(str(folder), device="cpu")
        with torch.random.fork_rng(devices=[]):
            # Not PEFT's wrapper for the task: those pass arguments that a diffusion model has not.
            adapted = PeftModel(model, config)
        expected = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
        missing = sorted(expected - weights.keys())
        result = set_peft_model_state_dict(adapted, weights)
    except (RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{folder}: the adapter does not fit the model ({error}); "
            "use the model it was trained on"
        ) from error
    wrong = missing + sorted(result.unexpected_keys)
    if wrong:
        raise CheckpointError(
            f"{folder}: the adapter does not fit the model (missing or unexpected: "
            f"{', '.join(wrong[:3])}); use the model it was trained on"
        )
    return adapted
