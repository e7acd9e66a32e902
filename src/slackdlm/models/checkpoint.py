"""Is this folder a whole, safe checkpoint? Its files are checked before any weight is loaded."""

import logging
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError, safe_open

from slackdlm import strict_json
from slackdlm.errors import CheckpointError, one_line

_LOG = logging.getLogger(__name__)
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
# Whatever else of an old checkpoint a new one might lack, and would then be read with.
_PARTS = (
    *("model-*-of-*.safetensors", "generation_config.json", "slackdlm.json", "tokenizer.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "vocab.txt", "*.model", "chat_template.jinja"),
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_FLOATS = ("F64", "F32", "BF16", "F16")


class TensorInfo(NamedTuple):
    """What a checkpoint says about one tensor, without reading it."""

    shape: tuple[int, ...]
    file: str
    dtype: str
    """As safetensors calls it."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint; CheckpointError if there is none."""
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; {_instead_of(path)}")
    try:
        content = strict_json.parse(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{path}: expected JSON, got {one_line(error)}; copy the file again"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return cast("dict[str, Any]", content)


def weights_file(folder: Path) -> str:
    """The file by which a folder's weights are read: the index of the shards, or the only file."""
    return _INDEX if (folder / _INDEX).is_file() else _SINGLE


def read_tensor_infos(folder: Path) -> dict[str, TensorInfo]:
    """Name, shape and file of every tensor of a checkpoint; only headers are read.

    Files of weights that are not part of it are named in the log.

    Raises:
        CheckpointError: If there are no safetensors weights, or two that differ, a shard is missing
            or torn, a tensor is in two shards, or in the index and in none.
    """
    has_index, has_single = ((folder / name).is_file() for name in (_INDEX, _SINGLE))
    if not has_index and not has_single:
        raise _without_weights(folder)
    if has_index and has_single and not _is_same(folder):
        raise CheckpointError(
            f"{folder}: holds two checkpoints, {_SINGLE} and {_INDEX}, whose weights differ; remove"
            " the one that is not meant"
        )
    infos = _read_shards(folder) if has_index else read_headers(folder / _SINGLE)
    used = {_INDEX, _SINGLE, *(info.file for info in infos.values())}
    patterns = ("*.safetensors", "*.safetensors.index.json")
    unused = {path.name for pattern in patterns for path in folder.glob(pattern)} - used
    if unused:
        _LOG.warning(
            "%s: files not used: %s; the weights are those of %s",
            folder,
            _listed(sorted(unused)),
            weights_file(folder),
        )
    return infos


def _read_shards(folder: Path) -> dict[str, TensorInfo]:
    index_path = folder / _INDEX
    index = read_json(index_path)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not isinstance(index.get("metadata"), dict):
        raise CheckpointError(
            f"{index_path}: expected the objects metadata and weight_map; copy the file again"
        )
    infos: dict[str, TensorInfo] = {}
    for shard in sorted({str(file) for file in weight_map.values()}):
        if Path(shard).name != shard:
            raise CheckpointError(f"{index_path}: expected file names, got {one_line(repr(shard))}")
        if not (folder / shard).is_file():
            raise CheckpointError(f"{folder / shard}: missing shard; copy the checkpoint again")
        headers = read_headers(folder / shard)
        if repeated := sorted(infos.keys() & headers.keys()):
            raise CheckpointError(
                f"{folder / shard}: {_listed(repeated)} in another shard too; copy the folder again"
            )
        infos |= headers
    absent = sorted(name for name in weight_map if name not in infos)
    if absent:
        raise CheckpointError(
            f"{index_path}: {_listed(absent)} in the index but in no shard; copy the folder again"
        )
    return infos


def _is_same(folder: Path) -> bool:
    """Whether the only file and the shards hold the same numbers, both whole."""
    try:
        single, shards = read_headers(folder / _SINGLE), _read_shards(folder)
    except CheckpointError:
        return False
    return single.keys() == shards.keys() and all(
        is_equal(folder, (name, single[name]), (name, shards[name])) for name in single
    )


def is_equal(folder: Path, first: tuple[str, TensorInfo], second: tuple[str, TensorInfo]) -> bool:
    """Whether two tensors of a folder, given by name and file, hold the same numbers."""
    if first[1][::2] != second[1][::2]:  # shape and type
        return False
    tensors: list[torch.Tensor] = []
    for name, info in (first, second):
        with safe_open(str(folder / info.file), framework="pt") as file:
            tensors.append(file.get_tensor(name))
    return torch.equal(*tensors)


def check_tensors(
    tensors: Mapping[str, TensorInfo], expected: Mapping[str, tuple[int, ...]], *, folder: Path
) -> None:
    """CheckpointError unless a checkpoint holds exactly the expected tensors, as floats.

    Before anything is read: a wrong number in ``config.json`` could ask for any amount of memory.
    """
    shared = sorted(expected.keys() & tensors.keys())
    problems = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        "shapes": [
            f"{name} is {list(tensors[name].shape)}, expected {list(expected[name])}"
            for name in shared
            if tensors[name].shape != expected[name]
        ],
        "types": [
            f"{name} is {tensors[name].dtype}, expected a float type"
            for name in shared
            if tensors[name].dtype not in _FLOATS
        ],
    }
    if any(problems.values()):
        named = "; ".join(f"{kind}: {_listed(names)}" for kind, names in problems.items() if names)
        raise CheckpointError(
            f"{folder}: the weights do not fit its config.json ({named}); "
            "use the config.json that belongs to these weights"
        )


def read_headers(path: Path) -> dict[str, TensorInfo]:
    """Name, shape, file and type of every tensor of one safetensors file, if it is whole."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return {
                name: TensorInfo(tuple(part.get_shape()), path.name, str(part.get_dtype()))
                for name in file.keys()  # noqa: SIM118 - not a mapping
                for part in [file.get_slice(name)]
            }
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: torn or not safetensors ({one_line(error)}); copy it again"
        ) from error


@contextmanager
def replaced(folder: Path) -> Generator[Path]:
    """A folder to write a checkpoint to, which replaces the one in ``folder`` once it is whole.

    What says where the weights are goes first and comes last: a checkpoint half replaced does not
    load. Files that no checkpoint has stay.
    """
    draft = folder / ".draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        sources = [_SINGLE, _INDEX]
        for name in [*sources, *_PARTS]:
            for old in folder.glob(name):
                old.unlink()
        for new in sorted(draft.iterdir(), key=lambda path: path.name in sources):
            new.replace(folder / new.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _instead_of(path: Path) -> str:
    """What to do without a file: the folder may be whole, and of another kind."""
    folder, is_adapter = path.parent, path.name == "adapter_config.json"
    if (folder / "run.json").is_file():
        return f"this is the folder of a training run, whose result is {folder / 'model'}"
    if path.name == "config.json" and (folder / "adapter_config.json").is_file():
        return "this is an adapter; give the model it was trained on, and this as its adapter"
    if is_adapter and (folder / "config.json").is_file():
        return "this is a model, not an adapter"
    return "the checkpoint folder is not complete; copy it again"


def _without_weights(folder: Path) -> CheckpointError:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    if pickles:
        text = (
            f"expected safetensors weights, found only pickles ({_listed(pickles)}), which can run"
            " code and are never loaded; convert them to safetensors"
        )
    elif shards:
        text = f"found {_listed(shards)} without their index; copy {_INDEX} there"
    else:
        text = f"expected {_SINGLE} or {_INDEX}, found neither; copy the weights there"
    return CheckpointError(f"{folder}: {text}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(one_line(name, longest=80) for name in names[:3]) + more
