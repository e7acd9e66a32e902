"""Which model is an adapter for? The name and a hash of the weights under it, kept beside the adapter."""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

from slackdlm.config import Text, settings
from slackdlm.models.checkpoint import read_tensor_infos

_LOG = logging.getLogger(__name__)
_WHOLE = 2**22
"""Bytes up to which a tensor is read whole."""
_PIECE = 2**16
"""Bytes of each of the pieces that are read of a larger one, as many as come to ``_WHOLE``."""


@settings
class Base:
    """The model that an adapter was trained on."""

    name: Text
    """Where it came from; says nothing where the model has moved."""
    sha256: Text
    """From :func:`base_sha256`."""


def base_sha256(folder: Path) -> str:
    """Hash of a checkpoint's tensors: names, shapes, types and bytes, however they are spread over files.

    Of tensors above 4 MB it reads 64 pieces of 64 kB, evenly spread: one GB of LLaDA-8B's 16. Training moves all
    of a matrix, so that this tells fine-tunes apart; it misses an edit by hand between the pieces.
    """
    infos = read_tensor_infos(folder)
    places = {file: _offsets(folder / file) for file in {info.file for info in infos.values()}}
    digest = hashlib.sha256()
    for name, info in sorted(infos.items()):
        digest.update(f"{name} {info.shape} {info.dtype}".encode())
        for piece in _pieces(folder / info.file, *places[info.file][name]):
            digest.update(piece)
    return digest.hexdigest()


def compare_base(
    adapter: Path, recorded: Base | None, *, named: object, name: str, folder: Path
) -> None:
    """Warns, in one line, that an adapter is put on another model than it was trained on, or that nobody can tell.

    No error: fine-tunes of one model, and copies of it in another type, do share adapters.

    Args:
        adapter: Its folder.
        recorded: What lies beside it; None: nothing.
        named: ``base_model_name_or_path`` of its configuration.
        name: The model it is put on.
        folder: That model's weights.
    """
    if recorded is None:
        is_other = isinstance(named, str) and named and Path(named).name != Path(name).name
        names = f"; its configuration names {named}" if is_other else ""
        _LOG.warning(
            "%s: the adapter comes with no record of its base's weights, so they were not compared with those"
            " of %s%s",
            *(adapter, name, names),
        )
        return
    found = base_sha256(folder)
    if found != recorded.sha256:
        _LOG.warning(
            "%s: the adapter was trained on %s (weights %.8s), but %s (weights %.8s) is another model of the"
            " same shape, or the same in another type; what it says is neither's",
            *(adapter, recorded.name, recorded.sha256, name, found),
        )


def _offsets(file: Path) -> dict[str, tuple[int, int]]:
    """Where each tensor of a safetensors file begins and ends."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    starts = {name: entry["data_offsets"] for name, entry in header.items()}
    return {name: (8 + size + first, 8 + size + last) for name, (first, last) in starts.items()}


def _pieces(file: Path, first: int, last: int) -> Iterator[bytes]:
    """What is read of the bytes between two places."""
    size, count = last - first, _WHOLE // _PIECE
    length = size if size <= _WHOLE else _PIECE
    steps = [0] if size <= _WHOLE else [i * (size - _PIECE) // (count - 1) for i in range(count)]
    with file.open("rb") as stream:
        for step in steps:
            stream.seek(first + step)
            yield stream.read(length)
