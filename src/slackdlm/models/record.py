"""How was a model trained, and an adapter on which weights? A file beside the weights says it."""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from slackdlm.atomic import write_json
from slackdlm.config import Count, NonNegative, Share, Text, build, settings
from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.models.checkpoint import read_json, read_tensor_infos
from slackdlm.models.hub import locate

_LOG = logging.getLogger(__name__)
FILE = "slackdlm.json"
_WHOLE = 2**22
"""Bytes up to which a tensor is hashed whole."""
_PIECE = 2**16
"""Bytes of each of the pieces that are hashed of a larger one, as many as come to ``_WHOLE``."""


@settings
class Base:
    """The model that an adapter was trained on."""

    name: Text
    """Where it came from; says nothing where the model has moved."""
    sha256: Text
    """From :func:`base_sha256`."""


@settings
class TrainingRecord:
    """The canvases a model was last trained on. Decides no output: the weights are the model."""

    objective: Literal["ce", "slack_ctc", "mixed"]
    """``objective.kind`` of its recipe."""
    ctc_weight: Share
    """``w`` of ``(1 - w) CE + w slack_ctc``."""
    slack_ratio: tuple[NonNegative, NonNegative]
    """Smallest and largest slack budget as a share of the response tokens."""
    slack_region: Literal["content", "canvas"]
    """``canvas``: slack fell into the end-of-text padding too."""
    padding: Literal["fixed", "llada", "none"]
    """What stood behind a response: see ``data.padding``."""
    canvas_length: Count
    """Canvas positions with ``padding: fixed``, otherwise the most."""
    base: Base | None = None
    """Of an adapter: the model that it was trained on."""

    def __post_init__(self) -> None:
        low, high = self.slack_ratio
        if low > high:
            raise ConfigError(f"slack_ratio: expected low <= high, got [{low}, {high}]")

    def canvas_for(self, gen_length: int) -> int:
        """Positions for so many response tokens and the most slack they were trained with.

        ``S + round(r S)`` with the largest ``r``, as training writes canvases.
        """
        return gen_length + round(self.slack_ratio[1] * gen_length)


def write_record(record: TrainingRecord, folder: Path) -> None:
    """Write it beside the weights or the adapter."""
    content = {key: value for key, value in asdict(record).items() if value is not None}
    write_json(folder / FILE, content)


def read_record(folder: Path) -> TrainingRecord | None:
    """The record in a model's or an adapter's folder; None where there is none.

    Raises:
        CheckpointError: If the file is not such a record.
    """
    file = folder / FILE
    if not file.exists():
        return None
    try:
        return build(TrainingRecord, read_json(file))
    except ConfigError as error:
        raise CheckpointError(
            f"{file}: not a record of training ({error}); copy it again or remove it"
        ) from error


def find_record(
    name_or_path: str | Path, *, adapter: str | Path | None = None
) -> TrainingRecord | None:
    """The record of a model, read without its weights: the adapter's if there is one.

    Raises:
        CheckpointError: If there is no such folder or hub id, or the file is not such a record.
    """
    record = None if adapter is None else read_record(locate(adapter, with_weights=False))
    return record or read_record(locate(name_or_path, with_weights=False))


def compare_base(adapter: Path, record: TrainingRecord | None, *, name: str, folder: Path) -> None:
    """Warn, in one line, of an adapter on other weights than it was trained on, or on unknown ones.

    No error: fine-tunes of one model, and copies of it in another type, do share adapters.

    Args:
        adapter: Its folder.
        record: What lies beside it; None: nothing.
        name: The model it is put on.
        folder: That model's weights.
    """
    base = None if record is None else record.base
    if base is None:
        named = read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
        is_other = isinstance(named, str) and named and Path(named).name != Path(name).name
        names = f"; its configuration names {named}" if is_other else ""
        _LOG.warning(
            "%s: the adapter comes with no record of its base's weights, so they were not compared"
            " with those of %s%s",
            *(adapter, name, names),
        )
        return
    sha256 = base_sha256(folder)
    if sha256 != base.sha256:
        _LOG.warning(
            "%s: the adapter was trained on %s (weights %.8s), but %s (weights %.8s) is another"
            " model of the same shape, or the same in another type; what it says is neither's",
            *(adapter, base.name, base.sha256, name, sha256),
        )


def base_sha256(folder: Path) -> str:
    """Hash of a checkpoint's tensors (names, shapes, types, bytes), however spread over files.

    Of tensors above 4 MB it reads 64 pieces of 64 kB, evenly spread: one GB of LLaDA-8B's 16.
    Training moves all of a matrix, so this tells fine-tunes apart; it misses an edit by hand
    between the pieces.
    """
    infos = read_tensor_infos(folder)
    offsets = {file: _offsets(folder / file) for file in {info.file for info in infos.values()}}
    digest = hashlib.sha256()
    for name, info in sorted(infos.items()):
        digest.update(f"{name} {info.shape} {info.dtype}".encode())
        for piece in _pieces(folder / info.file, *offsets[info.file][name]):
            digest.update(piece)
    return digest.hexdigest()


def _offsets(file: Path) -> dict[str, tuple[int, int]]:
    """Where each tensor of a safetensors file begins and ends; the library does not say."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    start = 8 + size
    return {
        name: (start + entry["data_offsets"][0], start + entry["data_offsets"][1])
        for name, entry in header.items()
    }


def _pieces(file: Path, first: int, last: int) -> Iterator[bytes]:
    """What is hashed of the bytes from ``first`` to ``last``."""
    size, count = last - first, _WHOLE // _PIECE
    steps = [0] if size <= _WHOLE else [i * (size - _PIECE) // (count - 1) for i in range(count)]
    with file.open("rb") as stream:
        for step in steps:
            stream.seek(first + step)
            yield stream.read(size if size <= _WHOLE else _PIECE)
