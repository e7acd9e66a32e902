"""How do weights get from safetensors into a network, and where to? One device, several, or 4 bits."""

import logging
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from accelerate import infer_auto_device_map
from accelerate.utils import get_max_memory
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from slackdlm.errors import CheckpointError, ConfigError, SlackDLMError, one_line
from slackdlm.models.checkpoint import (
    TensorInfo,
    check_tensors,
    is_equal,
    read_tensor_infos,
    weights_file,
)

_LOG = logging.getLogger(__name__)
Model = TypeVar("Model", bound=PreTrainedModel)
Device = int | str | torch.device
DeviceMap = str | Mapping[str, Device]
_TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}


class Placement(NamedTuple):
    """Where the weights go and as what."""

    dtype: torch.dtype | None
    """None: as in the checkpoint."""
    device: torch.device | None
    """One device for everything; None: the CPU, or what ``device_map`` says."""
    device_map: DeviceMap | None
    """``auto``: spread over all GPUs; or module names to devices."""
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
    """A network with the weights of a checkpoint folder, checked by name and shape before reading.

    Args:
        model_class: What to build from ``config``.
        folder: Holds ``model.safetensors``, or shards and their index.
        config: Of that class.
        placement: Where to and as what.
        is_unused: Which names may lie in the folder beside those of the network; given, tied
            weights and the old names of layer norms may as well. None: none may.

    Returns:
        The network in evaluation mode.

    Raises:
        CheckpointError: If the folder's tensors are not those of the network, or there are two sets.
        ConfigError: If the placement is not possible here.
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
    if placement.device is not None and placement.device.type == "meta":
        network = cast("nn.Module", empty)
        network.to(placement.dtype or config.dtype or torch.float32).eval()
        return empty
    _check_placement(placement)
    found = _check_folder(folder, empty, is_unused=is_unused)
    settings: dict[str, Any] = {}
    if placement.quantization is not None:
        settings["quantization_config"] = _four_bits(head_name(empty), placement.dtype)
    devices = _devices(empty, placement)
    config.transformers_weights = weights_file(folder)  # what is checked is what is read
    loaded: Any = model_class.from_pretrained(
        folder,
        config=config,
        output_loading_info=True,
        dtype="auto" if placement.dtype is None else placement.dtype,
        device_map=devices,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        **settings,
    )
    model, report = cast("tuple[Model, dict[str, Any]]", loaded)
    vars(model.config).pop("transformers_weights")
    _check_report(report, is_unused=is_unused, folder=folder)
    _check_together(model)
    if placement.dtype is None:
        _name_other_types(found, model.dtype, folder=folder)
    model.eval()
    return model


def _check_folder(
    folder: Path, empty: PreTrainedModel, *, is_unused: Callable[[str], bool] | None
) -> dict[str, TensorInfo]:
    """The tensors that are read, if they are those of the network."""
    found, tied = read_tensor_infos(folder), empty.all_tied_weights_keys.keys()
    expected = {k: tuple(v.shape) for k, v in empty.state_dict().items() if k not in tied}
    if is_unused is not None:
        known = {k: info for k, info in found.items() if k in expected or not is_unused(k)}
        _check_tied(known, empty, folder=folder)
        found = {_current_name(name): info for name, info in known.items() if name not in tied}
    check_tensors(found, expected, folder=folder)
    return found


def _check_tied(found: Mapping[str, TensorInfo], empty: PreTrainedModel, *, folder: Path) -> None:
    """Raise if the weights of what the configuration makes one tensor are two."""
    for name, source in empty.all_tied_weights_keys.items():
        both = [(key, found[key]) for key in (name, source) if key in found]
        if len(both) == 2 and not is_equal(folder, *both):
            raise CheckpointError(
                f"{folder}: {name} and {source} differ, but config.json ties them"
                " (tie_word_embeddings); use the config.json that belongs to these weights"
            )


def _check_report(
    report: Mapping[str, Any], *, is_unused: Callable[[str], bool] | None, folder: Path
) -> None:
    """Raise if transformers drew a weight anew or left one out, whatever was checked before."""
    unexpected = {n for n in report["unexpected_keys"] if is_unused is None or not is_unused(n)}
    wrong = {"newly drawn": report["missing_keys"], "not used": unexpected}
    wrong |= {"of another shape": report["mismatched_keys"]}
    problems = [f"{what}: {sorted(names)[0]}" for what, names in wrong.items() if names]
    if problems or report["error_msgs"]:
        raise CheckpointError(
            f"{folder}: the weights do not fit its config.json ({one_line('; '.join(problems))}"
            f"{one_line(' '.join(report['error_msgs']))}); use the config.json that belongs to them"
        )


def _name_other_types(found: Mapping[str, TensorInfo], dtype: torch.dtype, *, folder: Path) -> None:
    other = {info.dtype for info in found.values()} - {_TYPES.get(dtype)}
    if other:
        _LOG.warning(
            "%s: weights of type %s are read as %s; config.json asks for that, or their types differ",
            folder,
            ", ".join(sorted(other)),
            str(dtype).removeprefix("torch."),
        )


def head_name(model: PreTrainedModel) -> str:
    """The full name of the output layer, which may share its last part with other layers."""
    head = model.get_output_embeddings()
    return next(name for name, module in model.named_modules() if module is head)


def spread(model: PreTrainedModel, *, max_memory: Mapping[int, int]) -> dict[str, Device]:
    """Blocks to devices, in order, the output layer beside the embedding, as sampler and loss need.

    Args:
        model: On the meta device, in the type it will have.
        max_memory: Bytes per device.

    Returns:
        Module names and their devices; ``{"": device}`` if one device holds everything.

    Raises:
        ConfigError: If the devices together are too small.
    """
    head, embedding = head_name(model), model.get_input_embeddings()
    output: Any = model.get_output_embeddings()
    weight: Any = output.weight
    first = next(iter(max_memory))
    shared = weight is embedding.weight
    room: dict[int | str, int | str] = {**max_memory}
    whole: dict[str, Device] = _infer(model, room)
    if len(set(whole.values())) == 1:
        return {"": first}
    if not shared:  # accelerate would put it last
        room[first] = max_memory[first] - weight.numel() * weight.element_size()
    devices = _infer(model, room)
    if "disk" in devices.values():
        raise ConfigError(
            f"device_map: the model does not fit into the memory of {sorted(map(str, max_memory))}; "
            "use a smaller dtype, quantization or more devices"
        )
    devices[head] = first
    return devices


def _infer(model: PreTrainedModel, max_memory: dict[int | str, int | str]) -> dict[str, Device]:
    blocks = list(model._no_split_modules or [])  # pyright: ignore[reportPrivateUsage]
    found: dict[str, Device] = dict(
        infer_auto_device_map(model, max_memory=max_memory, no_split_module_classes=blocks)
    )
    return found


def _check_placement(placement: Placement) -> None:
    if placement.device_map is not None and placement.device is not None:
        raise ConfigError("load_model: give device or device_map, not both")
    if isinstance(placement.device_map, str) and placement.device_map != "auto":
        raise ConfigError(
            f"device_map: unknown {placement.device_map!r}; use 'auto' or names to devices"
        )
    if placement.quantization not in (None, "4bit"):
        raise ConfigError(f"quantization: unknown {placement.quantization!r}; use '4bit'")


def _devices(empty: PreTrainedModel, placement: Placement) -> dict[str, Device]:
    if placement.device_map is None:
        return {"": placement.device or torch.device("cpu")}
    if not isinstance(placement.device_map, str):
        return dict(placement.device_map)
    if not torch.cuda.is_available():
        return {"": "cpu"}
    gpus = {d: size for d, size in get_max_memory().items() if isinstance(d, int)}
    sized: Any = empty.to(placement.dtype or empty.config.dtype)  # pyright: ignore[reportArgumentType]
    return spread(sized, max_memory=gpus)


def _check_together(model: PreTrainedModel) -> None:
    ends: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    places = [end.weight.device for end in ends]
    if places[0] != places[1] or places[0].type == "meta":
        raise ConfigError(
            f"device_map: the embedding is on {places[0]} and the output layer on {places[1]} "
            "(meta: on no device), but sampler and loss need both on one; map both to the same"
        )


def _current_name(name: str) -> str:
    """As transformers renames them: BERT was published with TensorFlow's names."""
    return re.sub(r"LayerNorm\.(gamma|beta)$", _layer_norm_name, name)


def _layer_norm_name(match: re.Match[str]) -> str:
    return "LayerNorm." + {"gamma": "weight", "beta": "bias"}[match.group(1)]


def _four_bits(head: str, dtype: torch.dtype | None) -> BitsAndBytesConfig:
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            "quantization: 4bit needs bitsandbytes, which is not installed; "
            "pip install 'slackdlm[qlora]'"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype or torch.bfloat16,
        llm_int8_skip_modules=[head],  # of 8-bit's name, but read for 4 bits too
    )
