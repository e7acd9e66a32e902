"""How does a PEFT adapter get onto a model? Newly made, or from safetensors, checked key by key."""

import difflib
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PeftType,
    PromptLearningConfig,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from peft.tuners.lora import LoraLayer
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from slackdlm.errors import CheckpointError, ConfigError, one_line
from slackdlm.models.checkpoint import TensorInfo, read_headers, read_json
from slackdlm.models.loaded import LoadedModel, head_name, plain_head
from slackdlm.models.token_row import use_token_rows

_WEIGHTS = "adapter_model.safetensors"
# Written by versions of PEFT and of no effect on what is loaded.
_DROPPED = {"auto_mapping", "peft_version", "peft_type"}
# Their forward pass takes more than a sequence, or is another model's.
_NOT_SUPPORTED = {"ADAPTION_PROMPT", "POLY", "SHADOW", "XLORA"}


def apply_adapter(model: PreTrainedModel, folder: Path, *, slack_id: int) -> PeftModel:
    """The model with an adapter on it, frozen and not merged.

    Args:
        model: The model the adapter was trained on; changed in place. On the meta device only the
            headers of the adapter's weights are read.
        folder: Holds ``adapter_config.json`` and ``adapter_model.safetensors``.
        slack_id: The token whose row :func:`new_adapter` trains.

    Raises:
        CheckpointError: If a file is missing or torn, the weights do not fit the model, or the
            adapter changes more than the model's weights.
    """
    settings = read_json(folder / "adapter_config.json")
    if not (folder / _WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder}: expected {_WEIGHTS}, found none (pickled adapters are never loaded); "
            "save the adapter again with save_pretrained"
        )
    kind = settings.get("peft_type")
    if kind not in list(PEFT_TYPE_TO_CONFIG_MAPPING):
        raise CheckpointError(
            f"{folder / 'adapter_config.json'}: expected a peft_type such as LORA, got"
            f" {one_line(repr(kind))}; copy the file again"
        )
    _refuse_other_models(folder, str(kind), settings)
    infos = read_headers(folder / _WEIGHTS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unknown keys and names, which are refused below
            adapted, wrong = _read(model, folder, settings, infos, slack_id=slack_id)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    except Exception as error:  # a wrong value makes PEFT raise whatever it leads to
        raise CheckpointError(
            f"{folder}: the adapter does not fit the model ({type(error).__name__}: "
            f"{one_line(error)}); use the model it was trained on and its own adapter_config.json"
        ) from error
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"{folder}: the adapter does not fit the model ("
            f"{one_line(', '.join(wrong[:3]), longest=400)}{more}); use the model it was trained on"
        )
    return adapted


def _refuse_other_models(folder: Path, kind: str, settings: dict[str, Any]) -> None:
    """What is kept are adapters of the weights, which are the same at each loading."""
    if issubclass(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)], PromptLearningConfig):
        what = f"{kind} puts virtual tokens in front of the input (prompt learning)"
    elif kind in _NOT_SUPPORTED:
        what = f"{kind} is more than an adapter of weights"
    elif settings.get("alora_invocation_tokens"):
        what = "it is an activated LoRA (alora_invocation_tokens), which works from a token on"
    elif str(settings.get("init_lora_weights")).startswith("pissa_niter"):
        what = "init_lora_weights of pissa_niter draws the base's weights anew at each loading"
    elif settings.get("layer_replication"):
        what = "layer_replication makes another network of the model"
    else:
        return
    raise CheckpointError(
        f"{folder}: {what}, which is not supported; use an adapter of the weights, such as LORA"
    )


def _read(
    model: PreTrainedModel,
    folder: Path,
    settings: dict[str, Any],
    infos: dict[str, TensorInfo],
    *,
    slack_id: int,
) -> tuple[PeftModel, list[str]]:
    """The model with an adapter on it, and what does not fit: it is only put on if all does."""
    on_meta = model.device.type == "meta"
    config = PeftConfig.from_pretrained(str(folder))
    # What is None or False asks for nothing; other versions of PEFT write more such keys.
    asking = {key for key, value in settings.items() if value is not None and value is not False}
    unknown = sorted(asking - vars(config).keys() - _DROPPED)
    if unknown:
        raise ValueError(f"unknown keys {', '.join(unknown[:3])}")
    config.inference_mode = True
    weights: dict[str, Tensor] = (
        {name: torch.empty(info.shape, device="meta") for name, info in infos.items()}
        if on_meta
        else load_peft_weights(str(folder), device="cpu")
    )
    with torch.random.fork_rng(devices=[]), torch.device("meta" if on_meta else "cpu"):
        # Not PEFT's wrapper for the task: those pass arguments that a diffusion model has not.
        adapted = PeftModel(model, config)
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    wrong = sorted(f"{name} is missing" for name in expected.keys() - weights.keys()) + [
        f"{name} is {list(weights[name].shape)}, expected {list(value.shape)}"
        for name, value in sorted(expected.items())
        if name in weights and weights[name].shape != value.shape
    ]
    use_token_rows(adapted, slack_id=slack_id)
    _untie(adapted)
    # Whole layers, which PEFT puts into the base and may not save again by itself.
    vars(adapted)["brings_layers"] = bool(weights.keys() - expected.keys())
    if not wrong:
        result = set_peft_model_state_dict(adapted, weights)
        wrong = [f"{name} is unexpected" for name in sorted(result.unexpected_keys)]
    return adapted, wrong


def _untie(model: PeftModel) -> None:
    """An adapter on one of two tied layers makes them two: merged, it would change both."""
    network: Any = model.get_base_model()
    first: Any = network.get_input_embeddings()
    last: Any = network.get_output_embeddings()
    head = plain_head(last)
    if isinstance(first, nn.Embedding | TrainableTokensWrapper) and (
        head is last or isinstance(last, TrainableTokensWrapper)
    ):
        return
    embedding = next(m for m in first.modules() if isinstance(m, nn.Embedding))
    if head.weight is embedding.weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        network.config.tie_word_embeddings = False
        network.all_tied_weights_keys = {}


def new_adapter(
    loaded: LoadedModel,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    target_modules: Sequence[str] | None = None,
    train_slack: bool = True,
    seed: int = 0,
) -> LoadedModel:
    """The model, in evaluation mode, with a new float32 LoRA adapter, which changes nothing yet.

    The adapter alone is trainable. Embedding and output layer stay as they are, but for the row of
    ``<slack>`` in both, a token that the model may never have met.

    Args:
        loaded: Its network is changed in place.
        rank: Rank of the update, at least 1.
        alpha: The update is scaled by ``alpha / rank``; above 0.
        dropout: Share of the adapter's inputs dropped in training, in [0, 1).
        target_modules: Linear layers such as ``["q_proj"]``, adapted in every block; None: all.
        train_slack: Whether the rows of ``<slack>`` are trained as well.
        seed: Decides the new weights. PyTorch's own generators are left where they were.

    Raises:
        ConfigError: If a number is out of range, a name fits no linear layer or the output layer
            alone, or the model carries an adapter already.

    References:
        Hu et al., 2021 (LoRA).
    """
    model = loaded.model
    if isinstance(model, PeftModel):
        text = "carries one already; train that one, or merge it: model.merge_and_unload()"
        raise ConfigError(f"adapter: {loaded.name} {text}")
    if rank < 1 or not alpha > 0 or not 0 <= dropout < 1:
        raise ConfigError(
            "adapter: expected rank >= 1, alpha > 0 and dropout in [0, 1), "
            f"got {rank}, {alpha} and {dropout}"
        )
    head = head_name(model)
    targets = _targets(model, target_modules, head=head)
    rows = _vocabulary_rows(model, loaded.slack_id, head=head)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType] - PEFT divides it, whole or not
        lora_dropout=dropout,
        target_modules=targets,
        # Where nothing is excluded, PEFT warns of a key that excludes nothing.
        exclude_modules=[head] if head.rpartition(".")[2] in targets else None,
        trainable_token_indices=rows if train_slack else None,
        base_model_name_or_path=model.name_or_path or None,
    )
    # PEFT draws on the CPU; forking all generators warns on machines with several GPUs.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        adapted = PeftModel(model, config)
    use_token_rows(adapted, slack_id=loaded.slack_id)
    adapted.eval()
    return replace(loaded, model=adapted, name=f"{loaded.name}+lora")


@contextmanager
def casts_by_autocast(model: nn.Module, *, active: bool) -> Generator[None]:
    """While it lasts, LoRA layers leave the type of their inputs to autocast, if ``active``.

    PEFT has each layer write its input in float32, which autocast then rounds back: no value
    changes, but two copies of the input are written, and one is kept for the backward pass.

    Args:
        model: With or without an adapter. Forward and backward passes under autocast alone.
        active: False: nothing happens.
    """
    layers = [m for m in model.modules() if isinstance(m, LoraLayer)] if active else []
    before = [layer.cast_input_dtype_enabled for layer in layers]
    for layer in layers:
        layer.cast_input_dtype_enabled = False
    try:
        yield
    finally:
        for layer, enabled in zip(layers, before, strict=True):
            layer.cast_input_dtype_enabled = enabled


def _vocabulary_rows(model: PreTrainedModel, token_id: int, *, head: str) -> dict[str, list[int]]:
    """Full names of the layers with a row for a token; of tied ones the embedding's alone."""
    embedding: Any = model.get_input_embeddings()
    output: Any = model.get_output_embeddings()
    names = [next(name for name, module in model.named_modules() if module is embedding)]
    if output.weight is not embedding.weight:
        names.append(head)
    return {name: [token_id] for name in names}


def _targets(
    model: PreTrainedModel, target_modules: Sequence[str] | None, *, head: str
) -> list[str]:
    """Last parts of the names of linear layers; None given: of all but the output layer."""
    names = sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name != head
        }
    )
    if target_modules is None:
        return names
    if not target_modules:
        raise ConfigError("adapter: target_modules is empty; name a layer or leave it out")
    for target in target_modules:
        if target in names:
            continue
        hint = f"use some of {', '.join(names)}"
        if target == head.rpartition(".")[2]:
            raise ConfigError(
                f"adapter: {target} is the output layer alone, which is never adapted; {hint}"
            )
        close = difflib.get_close_matches(target, names, n=1)
        hint = f"did you mean {close[0]}?" if close else hint
        raise ConfigError(f"adapter: no linear layer is called {target!r}; {hint}")
    return list(target_modules)
