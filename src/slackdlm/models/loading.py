"""How does a model come into memory, and where does it go? Weights, tokenizer and special ids."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerFast

from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.models.adapter import apply_adapter
from slackdlm.models.checkpoint import locate, read_json
from slackdlm.models.llada import LLaDAConfig, LLaDAModelLM
from slackdlm.models.loaded import LoadedModel, head_weight
from slackdlm.models.tokenizer import END_OF_TEXT, END_OF_TURN, MASK, RESERVED, SLACK, special_id
from slackdlm.models.weights import DeviceMap, Placement, read_weights

__all__ = ["LoadedModel", "head_weight", "load_model", "new_model", "save_model"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    name_or_path: str | Path,
    *,
    adapter: str | Path | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    device_map: DeviceMap | None = None,
    quantization: str | None = None,
) -> LoadedModel:
    """A published or saved model in evaluation mode, read from safetensors without remote code.

    Args:
        name_or_path: A folder, or a hub id (``HF_HUB_OFFLINE=1``: from the local cache only).
        adapter: Folder or hub id of a PEFT adapter to put on the model, not merged.
        dtype: Type of the weights; ``"float32"``, ``"bfloat16"`` or ``"float16"`` as text. None: as
            in the checkpoint.
        device: Where the model goes, read straight to it. None: the CPU.
        device_map: Instead of ``device``: ``"auto"`` spreads the blocks over all GPUs (the CPU, if
            there is none), a mapping says which module goes where; the embedding and the output
            layer must share a device.
        quantization: ``"4bit"``: all linear layers but the output layer as NF4 with double
            quantisation, for QLoRA; needs bitsandbytes. Not measured on a GPU.

    Returns:
        The model. ``<slack>`` is the token of that name, else ``<|reserved_token_0|>``, else a
        token added here: in a spare row if there is one, else in a new one, the mean of all others.

    Raises:
        CheckpointError: If the folder is missing, incomplete, torn, pickled or does not fit itself.
        ConfigError: If the architecture, one of its keys, ``dtype`` or the placement is not
            supported.
    """
    placement = Placement(
        dtype=_parse_dtype(dtype),
        device=None if device is None else torch.device(device),
        device_map=device_map,
        quantization=quantization,
    )
    folder = locate(name_or_path)
    raw = read_json(folder / "config.json")
    model_type = raw.get("model_type")
    if model_type == "llada":
        config = LLaDAConfig.from_dict(raw)
        model = read_weights(LLaDAModelLM, folder, config, placement)
    else:
        raise ConfigError(
            f"{folder / 'config.json'}: model_type {model_type!r} is not supported; "
            "supported: llada"
        )
    model.name_or_path = str(name_or_path)  # of a hub id transformers keeps the cache's folder
    tokenizer = _load_tokenizer(folder)
    _check_room(config, tokenizer, where=str(folder))
    loaded = _assemble(model, tokenizer, name=str(name_or_path))
    if adapter is not None:
        with_adapter = apply_adapter(model, locate(adapter))
        with_adapter.eval()
        loaded = replace(loaded, model=with_adapter, name=f"{name_or_path}+{adapter}")
    return loaded


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
    end_id = _require_id(tokenizer, END_OF_TEXT)
    for key, token_id in (
        ("mask_token_id", _require_id(tokenizer, MASK)),
        ("eos_token_id", end_id),
        ("pad_token_id", end_id),
    ):
        if getattr(config, key) is None:
            setattr(config, key, token_id)
    try:
        _check_room(config, tokenizer, where="new_model")
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator_seed)
        model = LLaDAModelLM(config)
    model.eval()
    return _assemble(model, tokenizer, name="new")


def save_model(
    loaded: LoadedModel,
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    max_shard_size: int | str = "5GB",
) -> None:
    """Write weights, ``config.json`` and tokenizer in the published layout, for ``load_model``.

    Args:
        loaded: Left as it is.
        folder: Made if it is not there.
        dtype: Type of the weights in the files, as for ``load_model``. None: as they are.
        max_shard_size: A checkpoint that is larger becomes several files and their index.

    Raises:
        ConfigError: If the model carries an adapter: those are saved on their own; or if it is
            quantised, since its weights are not those of the published layout any more.
    """
    target = _parse_dtype(dtype)
    if isinstance(loaded.model, PeftModel):
        raise ConfigError(
            "save_model: the model carries an adapter; save the adapter with "
            "model.save_pretrained(folder), or merge it first with model.merge_and_unload()"
        )
    model = loaded.model
    if getattr(model, "is_quantized", False):
        raise ConfigError("save_model: the model is quantised; save its adapter alone")
    state = model.state_dict()
    if target is not None:
        state = {k: v.to(target) if v.is_floating_point() else v for k, v in state.items()}
    model.save_pretrained(folder, state_dict=state, max_shard_size=max_shard_size)
    # Older readers know the type by another key, and transformers writes that of the model.
    path = Path(folder) / "config.json"
    name = str(target or model.dtype).removeprefix("torch.")
    config = json.loads(path.read_text(encoding="utf-8")) | {"dtype": name, "torch_dtype": name}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    loaded.tokenizer.save_pretrained(folder)


def _parse_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype: unknown {dtype!r}; use one of {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        read_json(folder / file)
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise CheckpointError(
            f"{folder / 'tokenizer.json'}: expected a tokenizer, got {error}; copy the file again"
        ) from error


def _check_room(config: LLaDAConfig, tokenizer: PreTrainedTokenizerFast, *, where: str) -> None:
    """Raise unless every id of the tokenizer has a row and the special ids are the config's."""
    for key, token in (
        ("mask_token_id", MASK),
        ("eos_token_id", END_OF_TEXT),
        ("pad_token_id", END_OF_TEXT),
    ):
        configured, token_id = getattr(config, key), _require_id(tokenizer, token)
        if configured != token_id:
            raise CheckpointError(
                f"{where}: {key} is {configured}, but {token} of the tokenizer is {token_id}; "
                "use the tokenizer that belongs to the weights"
            )
    largest = max(tokenizer.get_vocab().values())
    if largest >= config.num_rows:
        raise CheckpointError(
            f"{where}: the tokenizer has ids up to {largest}, but the embedding has only "
            f"{config.num_rows} rows; use the tokenizer that belongs to the weights"
        )


def _require_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    token_id = special_id(tokenizer, token)
    if token_id is None:
        raise CheckpointError(
            f"tokenizer: expected the token {token}, found none in its {len(tokenizer)} tokens; "
            "use the tokenizer of a masked diffusion model"
        )
    return token_id


def _assemble(model: LLaDAModelLM, tokenizer: PreTrainedTokenizerFast, *, name: str) -> LoadedModel:
    end_id, turn_id = _require_id(tokenizer, END_OF_TEXT), special_id(tokenizer, END_OF_TURN)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        mask_id=_require_id(tokenizer, MASK),
        slack_id=_find_or_add_slack(model, tokenizer),
        eos_ids=(end_id,) if turn_id is None else (end_id, turn_id),
        pad_id=end_id,
        name=name,
        max_length=model.config.max_sequence_length,
    )


def _find_or_add_slack(model: LLaDAModelLM, tokenizer: PreTrainedTokenizerFast) -> int:
    for token in (SLACK, RESERVED):
        token_id = special_id(tokenizer, token)
        if token_id is not None:
            return token_id
    tokenizer.add_special_tokens({"additional_special_tokens": [SLACK]})
    slack_id = _require_id(tokenizer, SLACK)
    if slack_id >= model.config.num_rows:
        _add_rows(model, slack_id + 1)
    return slack_id


@torch.no_grad()
def _add_rows(model: LLaDAModelLM, num_rows: int) -> None:
    """Grow embedding and head; new rows are the mean of the old ones, so nothing is drawn.

    Raises:
        ConfigError: If the model lies on several devices: new layers would not follow its map.
    """
    if len(set(getattr(model, "hf_device_map", {"": 0}).values())) > 1:
        raise ConfigError(
            "device_map: the vocabulary has no row for <slack>, and a spread model cannot grow; "
            "load it on one device, save_model it, and spread that"
        )
    num_old = model.config.num_rows
    with torch.random.fork_rng(devices=[]):
        model.resize_token_embeddings(num_rows, mean_resizing=False)
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        weight: Any = module.weight
        weight[num_old:] = weight[:num_old].float().mean(0).to(weight.dtype)
    # By this name PEFT would find the smaller model and save both matrices with every adapter.
    model.name_or_path = ""
