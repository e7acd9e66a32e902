"""How do weights get from safetensors into a network? Checked by name, shape, type, then read."""

import logging
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from slackdlm.errors import CheckpointError, ConfigError, SlackDLMError, counted, one_line
from slackdlm.models.checkpoint import (
    TensorInfo,
    check_tensors,
    is_equal,
    read_tensor_infos,
    weights_file,
)
from slackdlm.models.loaded import head_name

_LOG = logging.getLogger(__name__)
Model = TypeVar("Model", bound=PreTrainedModel)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}


class Placement(NamedTuple):
    """Where the weights go and as what."""

    dtype: torch.dtype | None
    """None: as in the checkpoint."""
    device: torch.device
    """``meta``: nowhere, shapes alone."""
    quantization: str | None
    """``4bit``: NF4 with double quantisation (QLoRA)."""


def read_weights(
    model_class: type[Model],
    folder: Path,
    config: Any,
    placement: Placement,
    *,
    is_unused: Callable[[str], bool] | None = None,
) -> Model:
    """A network with the weights of a checkpoint folder, checked before reading.

    Args:
        model_class: What to build from ``config``; it comes in evaluation mode.
        folder: Holds ``model.safetensors``, or shards and their index.
        config: Of that class.
        placement: Where to and as what.
        is_unused: Which names may lie in the folder beside those of the network; given, tied
            weights and the old names of layer norms may as well. None: none may.

    Raises:
        CheckpointError: If the folder's tensors are not those of the network, or there are two.
        ConfigError: If no network can be made of ``config``, or 4 bits are not possible here.
    """
    try:
        with torch.device("meta"):
            empty = model_class(config)
    except SlackDLMError:
        raise
    except Exception as error:  # a wrong value makes transformers raise whatever it leads to
        raise ConfigError(
            f"{folder / 'config.json'}: no network can be made of it ({type(error).__name__}:"
            f" {one_line(error)}); use the config.json that belongs to these weights"
        ) from error
    if placement.device.type == "meta":
        cast("nn.Module", empty).to(placement.dtype or config.dtype or torch.float32).eval()
        return empty
    settings = _four_bits(head_name(empty), placement)
    tensors = _check_folder(folder, empty, is_unused=is_unused)
    config.transformers_weights = weights_file(folder)  # what is checked is what is read
    loaded: Any = model_class.from_pretrained(
        folder,
        config=config,
        output_loading_info=True,
        dtype="auto" if placement.dtype is None else placement.dtype,
        device_map={"": placement.device},
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        **settings,
    )
    model, report = cast("tuple[Model, dict[str, Any]]", loaded)
    vars(model.config).pop("transformers_weights")
    _check_report(report, is_unused=is_unused, folder=folder)
    if placement.dtype is None:
        _warn_of_types(tensors, model.dtype, folder=folder)
    model.eval()
    return model


def _check_folder(
    folder: Path, empty: PreTrainedModel, *, is_unused: Callable[[str], bool] | None
) -> dict[str, TensorInfo]:
    """The tensors that are read, if they are those of the network."""
    tensors, tied = read_tensor_infos(folder), empty.all_tied_weights_keys
    expected = {k: tuple(v.shape) for k, v in empty.state_dict().items() if k not in tied}
    if is_unused is not None:
        known = {k: info for k, info in tensors.items() if k in expected or not is_unused(k)}
        for name, source in tied.items():
            both = [(key, known[key]) for key in (name, source) if key in known]
            if len(both) == 2 and not is_equal(folder, *both):
                raise CheckpointError(
                    f"{folder}: {name} and {source} differ, but config.json ties them"
                    " (tie_word_embeddings); use the config.json that belongs to these weights"
                )
        tensors = {_current_name(name): info for name, info in known.items() if name not in tied}
    check_tensors(tensors, expected, folder=folder)
    return tensors


def _current_name(name: str) -> str:
    """As transformers renames them: BERT was published with TensorFlow's names."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)


def _check_report(
    report: Mapping[str, Any], *, is_unused: Callable[[str], bool] | None, folder: Path
) -> None:
    """Raise if transformers drew a weight anew or left one out, whatever was checked before."""
    unexpected = {n for n in report["unexpected_keys"] if is_unused is None or not is_unused(n)}
    wrong = {"newly drawn": report["missing_keys"], "not used": unexpected}
    wrong |= {"of another shape": report["mismatched_keys"]}
    problems = [f"{what}: {sorted(names)[0]}" for what, names in wrong.items() if names]
    problems += report["error_msgs"]
    if problems:
        raise CheckpointError(
            f"{folder}: the weights do not fit its config.json ({one_line('; '.join(problems))});"
            " use the config.json that belongs to them"
        )


def _warn_of_types(tensors: Mapping[str, TensorInfo], dtype: torch.dtype, *, folder: Path) -> None:
    other = {info.dtype for info in tensors.values()} - {_TYPES.get(dtype)}
    if other:
        _LOG.warning(
            "%s: weights of type %s are read as %s; config.json asks for it, or their types differ",
            folder,
            ", ".join(sorted(other)),
            str(dtype).removeprefix("torch."),
        )


def _four_bits(head: str, placement: Placement) -> dict[str, Any]:
    if placement.quantization is None:
        return {}
    if placement.quantization != "4bit":
        raise ConfigError(f"quantization: unknown {placement.quantization!r}; use '4bit'")
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            "quantization: 4bit needs bitsandbytes, which is not installed; "
            "pip install 'slackdlm[qlora]'"
        )
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=placement.dtype or torch.bfloat16,
        llm_int8_skip_modules=[head],  # of 8-bit's name, but read for 4 bits too
    )
    return {"quantization_config": config}


def parse_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """The type of a name; ConfigError if there is none of it."""
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype: unknown {dtype!r}; use one of {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def parse_device(name: torch.device | str | None) -> torch.device:
    """A device that is there, ``meta`` included; None: the CPU. Else a ConfigError."""
    try:
        device = torch.device("cpu" if name is None else name)
    except RuntimeError as error:
        raise ConfigError(f"device: unknown {name!r}; use cpu, cuda or cuda:0") from error
    if device.type in ("cpu", "meta"):
        return device
    try:
        backend: Any = torch.get_device_module(device.type)
        num_devices = int(backend.device_count()) if backend.is_available() else 0
    except RuntimeError:  # torch knows the name and has nothing behind it
        num_devices = 0
    if (device.index or 0) >= num_devices:
        kind = {"cuda": "CUDA"}.get(device.type, device.type)
        number = counted(num_devices, f"{kind} device") if num_devices else f"no {kind} device"
        raise ConfigError(
            f"device: torch {torch.__version__} finds {number} for {str(name)!r};"
            " use another or cpu"
        )
    return device
