"""How does a model come into memory, and where does it go? Weights, tokenizer and special ids."""

import copy
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from slackdlm.atomic import write_json
from slackdlm.errors import CheckpointError, ConfigError, SlackDLMError, one_line
from slackdlm.models import encoder
from slackdlm.models.adapter import apply_adapter
from slackdlm.models.checkpoint import read_json, replaced
from slackdlm.models.configs import DreamConfig, LLaDAConfig
from slackdlm.models.dream import DreamModel
from slackdlm.models.hub import locate
from slackdlm.models.llada import LLaDAModelLM
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.record import compare_base, read_record, write_record
from slackdlm.models.special_tokens import DREAM, LLADA
from slackdlm.models.tokenizer import load_tokenizer
from slackdlm.models.vocabulary import (
    assemble,
    check_config_ids,
    check_room,
    encoder_tokens,
    listed_ends,
    require_id,
)
from slackdlm.models.weights import Placement, parse_device, parse_dtype, read_weights

_LOG = logging.getLogger(__name__)
Config = TypeVar("Config")
# model_type -> configuration, network and special tokens.
_NATIVE = {
    "llada": (LLaDAConfig, LLaDAModelLM, LLADA),
    "Dream": (DreamConfig, DreamModel, DREAM),
}


def load_model(
    name_or_path: str | Path,
    *,
    adapter: str | Path | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    quantization: str | None = None,
) -> LoadedModel:
    """A published or saved model in evaluation mode, read from safetensors without remote code.

    Args:
        name_or_path: A folder, or a hub id (``HF_HUB_OFFLINE=1``: from the local cache only).
        adapter: Folder or hub id of a PEFT adapter to put on the model, not merged.
        dtype: Type of the weights; ``"float32"``, ``"bfloat16"`` or ``"float16"`` as text. None: as
            in the checkpoint.
        device: Where the model goes, read straight to it; ``"meta"``: shapes alone. None: the CPU.
        quantization: ``"4bit"``: all linear layers but the output layer as NF4 with double
            quantisation, for QLoRA; needs bitsandbytes. Not measured on a GPU.

    Returns:
        The model. ``<slack>`` is the token of that name, else ``<|reserved_token_0|>`` (LLaDA) or
        ``[unused0]`` (encoders), else a token added here: in a spare row if there is one, else in a
        new one, the mean of all others.

    Raises:
        CheckpointError: If the folder is missing, incomplete, torn, pickled or does not fit itself.
        ConfigError: If the architecture, one of its keys, ``dtype``, ``device`` or ``quantization``
            is not supported.
    """
    placement = Placement(parse_dtype(dtype), parse_device(device), quantization)
    folder = locate(name_or_path, with_weights=placement.device.type != "meta")
    model = _read_network(folder, placement)
    model.name_or_path = str(name_or_path)  # of a hub id transformers keeps the cache's folder
    loaded = _with_tokenizer(model, folder, name=str(name_or_path))
    return loaded if adapter is None else _with_adapter(loaded, adapter)


def _read_network(folder: Path, placement: Placement) -> PreTrainedModel:
    """By the architecture of ``config.json``; float weights that it calls quantised are floats."""
    path = folder / "config.json"
    raw = read_json(path)
    if (folder / "adapter_config.json").is_file():  # transformers would load its base instead
        raise CheckpointError(
            f"{folder}: holds a model (config.json) and an adapter (adapter_config.json); move one"
            " of them to a folder of its own, and give the adapter as such if it is not merged"
        )
    for key in ("dtype", "torch_dtype"):
        dtype = getattr(torch, str(raw.get(key)).removeprefix("torch."), None)
        if raw.get(key) is not None and not isinstance(dtype, torch.dtype):
            raise ConfigError(
                f"{path}: {key}: expected a type such as bfloat16, got {one_line(repr(raw[key]))};"
                " copy the file again"
            )
    quantization = raw.pop("quantization_config", None)
    if quantization is None:
        return _network_of(folder, raw, placement)
    method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    kind = one_line(f"quantization_config ({method})")
    try:
        model = _network_of(folder, raw, placement)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; config.json has a {kind}: quantised weights are not read, use float ones"
        ) from error
    _LOG.warning("%s: not used: %s; the weights are read as floats", path, kind)
    return model


def _network_of(folder: Path, raw: dict[str, Any], placement: Placement) -> PreTrainedModel:
    model_type = str(raw.get("model_type"))
    if model_type in _NATIVE:
        config_class, model_class, _ = _NATIVE[model_type]
        config = _explained(folder, config_class.from_dict, raw)
        return read_weights(model_class, folder, config, placement)
    if not encoder.is_encoder(model_type):
        raise ConfigError(
            f"{folder / 'config.json'}: model_type {one_line(repr(raw.get('model_type')))} is not"
            " supported; supported: llada, Dream, and encoders with a masked-LM head such as bert,"
            " roberta, modernbert"
        )
    config = _explained(folder, encoder.encoder_config, raw)
    encoder_class = encoder.encoder_class(type(config))
    try:
        model = read_weights(encoder_class, folder, config, placement, is_unused=encoder.is_unused)
    except CheckpointError as error:
        raise encoder.without_head(error, raw) from error
    encoder.check_protocol(model)
    return model


def _explained(
    folder: Path, make: Callable[[dict[str, Any]], Config], raw: dict[str, Any]
) -> Config:
    """A configuration; every error names its file."""
    path = folder / "config.json"
    try:
        return make(raw)
    except SlackDLMError as error:
        raise ConfigError(str(error).replace("config.json", str(path), 1)) from error
    except Exception as error:  # a wrong value makes transformers raise whatever it leads to
        raise ConfigError(
            f"{path}: not a configuration ({type(error).__name__}: {one_line(error)}); "
            "copy the file again"
        ) from error


def _with_tokenizer(model: PreTrainedModel, folder: Path, *, name: str) -> LoadedModel:
    """With the tokenizer and the record of its folder, whose ids and rows fit it."""
    config: Any = model.config
    tokenizer, where = load_tokenizer(folder, config), str(folder)
    is_native = config.model_type in _NATIVE
    if is_native:
        names = _NATIVE[config.model_type][2]
        check_config_ids(config, tokenizer, names, where=where)
        max_length = config.max_sequence_length
        if max_length is None:
            raise ConfigError(
                f"{folder / 'config.json'}: expected a length in max_sequence_length, got nothing;"
                " copy the file again"
            )
    else:
        names, max_length = encoder_tokens(tokenizer, where=where), encoder.max_length(model)
    ends: tuple[int, ...] = ()
    # An encoder's single end is, most often, the default of its configuration's class.
    if is_native or isinstance(config.eos_token_id, list):
        ends = listed_ends(config.eos_token_id, tokenizer, names, where=f"{folder / 'config.json'}")
        path = folder / "generation_config.json"
        if path.is_file():
            listed = read_json(path).get("eos_token_id")
            ends += listed_ends(listed, tokenizer, names, where=str(path))
        ends = tuple(dict.fromkeys(ends))
        config.eos_token_id = ends[0] if len(ends) == 1 else list(ends)  # to be saved again
    embedding: Any = model.get_input_embeddings()
    check_room(tokenizer, num_rows=len(embedding.weight), where=where)
    loaded = assemble(model, tokenizer, names, name=name, max_length=int(max_length), ends=ends)
    return replace(loaded, record=read_record(folder), folder=folder)


def _with_adapter(loaded: LoadedModel, adapter: str | Path) -> LoadedModel:
    """Its record takes the place of the model's."""
    folder = locate(adapter)
    model = apply_adapter(cast("PreTrainedModel", loaded.model), folder, slack_id=loaded.slack_id)
    model.eval()
    record = read_record(folder)
    if loaded.folder is not None and loaded.device.type != "meta":
        compare_base(folder, record, name=loaded.name, folder=loaded.folder)
    name = f"{loaded.name}+{adapter}"
    return replace(loaded, model=model, name=name, record=record or loaded.record)


def new_model(
    config: LLaDAConfig, tokenizer: PreTrainedTokenizerFast, *, generator_seed: int
) -> LoadedModel:
    """A fp32 model with random weights, on the CPU, in evaluation mode.

    Args:
        config: Left as it is; the mask, end and padding ids are filled in on a copy.
        tokenizer: From ``train_tokenizer``, or any with LLaDA's special tokens.
        generator_seed: Decides every weight. PyTorch's own generators are left where they were.

    Returns:
        The model, named ``new``.

    Raises:
        ConfigError: If the ids of config and tokenizer disagree or do not fit the vocabulary.
        CheckpointError: If the tokenizer has no mask or end token.
    """
    config = copy.deepcopy(config)
    for key, token in (
        ("mask_token_id", LLADA.mask),
        ("eos_token_id", LLADA.end),
        ("pad_token_id", LLADA.end),
    ):
        token_id = require_id(tokenizer, token, where="new_model")
        if getattr(config, key) is None:
            setattr(config, key, token_id)
    try:
        check_config_ids(config, tokenizer, LLADA, where="new_model")
        check_room(tokenizer, num_rows=config.num_rows, where="new_model")
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator_seed)
        model = LLaDAModelLM(config)
    model.eval()
    return assemble(model, tokenizer, LLADA, name="new", max_length=config.max_sequence_length)


def save_model(
    loaded: LoadedModel,
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    max_shard_size: int | str = "5GB",
    state_dict: dict[str, Any] | None = None,
) -> None:
    """Write weights, ``config.json`` and tokenizer in the published layout, for ``load_model``.

    Args:
        loaded: Left as it is.
        folder: Made if it is not there. A model in it is replaced once the new one is written; if
            the process dies between, the folder holds no weights that load.
        dtype: Type of the weights in the files, as for ``load_model``. None: as they are.
        max_shard_size: A checkpoint that is larger becomes several files and their index.
        state_dict: All weights, where an engine has divided those of the model over processes.

    Raises:
        ConfigError: If the model carries an adapter: those are saved on their own; or if it is
            quantised, since its weights are not those of the published layout any more; or if
            the folder holds an adapter.
    """
    target, folder = parse_dtype(dtype), Path(folder)
    if isinstance(loaded.model, PeftModel):
        raise ConfigError(
            "save_model: the model carries an adapter; save the adapter with "
            "model.save_pretrained(folder), or merge it first with model.merge_and_unload()"
        )
    model = loaded.model
    if getattr(model, "is_quantized", False):
        raise ConfigError("save_model: the model is quantised; save its adapter alone")
    if (folder / "adapter_config.json").exists():
        raise ConfigError(f"save_model: {folder} holds an adapter; choose another folder")
    state = _as_files(model, state_dict or model.state_dict(), dtype=target)
    with replaced(folder) as draft:
        model.save_pretrained(draft, state_dict=state, max_shard_size=max_shard_size)
        # Older readers know the type by another key, and transformers writes that of the model.
        path = draft / "config.json"
        name = str(target or model.dtype).removeprefix("torch.")
        config = json.loads(path.read_text(encoding="utf-8")) | {"dtype": name, "torch_dtype": name}
        write_json(path, config, sort_keys=True)
        loaded.tokenizer.save_pretrained(draft)
        if loaded.record is not None:
            write_record(replace(loaded.record, base=None), draft)
        if isinstance(model, DreamModel):
            # What the published code cannot load Dream without: the ids again, and the merges.
            keys = ("bos_token_id", "eos_token_id", "mask_token_id", "pad_token_id")
            ids = {key: getattr(model.config, key, None) for key in keys}
            write_json(draft / "generation_config.json", {"_from_model_config": True} | ids)
            loaded.tokenizer.backend_tokenizer.model.save(str(draft))


def _as_files(
    model: PreTrainedModel, state: dict[str, Any], *, dtype: torch.dtype | None
) -> dict[str, Any]:
    """The weights in the type they are saved in; what is one tensor stays one."""
    if not model.all_tied_weights_keys:
        # Untied from the embedding, BERT's output layer still has a bias under two names.
        first = {v.data_ptr(): k for k, v in reversed(state.items())}
        state = {k: v if first[v.data_ptr()] == k else v.clone() for k, v in state.items()}
    if dtype is None:
        return state
    converted = {v.data_ptr(): v.to(dtype) for v in state.values() if v.is_floating_point()}
    return {k: converted.get(v.data_ptr(), v) for k, v in state.items()}
