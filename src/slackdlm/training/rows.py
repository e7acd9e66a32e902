"""Where do rows come from? JSONL, JSON, CSV, Parquet, Arrow, a folder or a hub data set, one mapping at a time."""

import csv
import gzip
import logging
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, cast

from slackdlm import strict_json
from slackdlm.errors import DataError, one_line

_LOG = logging.getLogger(__name__)
_TABLES = {".parquet": "parquet", ".arrow": "arrow"}
_OURS = (".jsonl", ".json", ".csv", ".tsv", ".gz", *_TABLES)
_OTHERS = (
    ".zip",
    ".zst",
    ".bz2",
    ".xz",
    ".tar",
    ".tgz",
    ".pkl",
    ".pt",
    ".npy",
    ".npz",
    ".xlsx",
    ".feather",
)
_NO_DATA = re.compile(r"\.|README|LICEN[CS]E|dataset_infos?\.json$|state\.json$", re.IGNORECASE)


class Row(NamedTuple):
    """One row and where it stands."""

    columns: dict[str, Any]
    """Values by column name."""
    source: str
    """``file:line``, or ``data set[split]:row`` counted from 1; for messages."""


def read_rows(
    name_or_path: str | Path,
    *,
    split: str = "train",
    subset: str | None = None,
    streaming: bool = False,
    limit: int | None = None,
) -> Iterator[Row]:
    """Rows in their order.

    Args:
        name_or_path: A file: ``.parquet``, ``.arrow``, ``.csv``, ``.tsv``, any other JSONL or one JSON list, ``.gz``
            behind it or not; a folder of them, or one that ``save_to_disk`` wrote; or ``owner/name`` on the hub.
        split: Of a folder or a hub data set.
        subset: Configuration of a folder or a hub data set.
        streaming: Read a hub data set row by row, without downloading it. Local ones always are.
        limit: At most so many.

    Returns:
        The rows; blank lines of JSONL are skipped and counted.

    Raises:
        DataError: While iterating, if something cannot be read; names the file and line.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        rows = _file(path)
    elif path.is_dir() and any((path / name).is_file() for name in _SAVED):
        rows = _saved(path, split)
    elif path.is_dir():
        rows = _folder(path, split, subset)
    elif _is_hub_name(name_or_path):
        name = str(name_or_path)
        rows = _data_set(
            name,
            where=f"{name}[{split}]",
            remedy="check name, split (data.split, data.eval_split), subset and network",
            name=subset,
            split=split,
            streaming=streaming,
        )
    else:
        raise DataError(_no_such_data(path))
    return islice(rows, limit)


def check_there(name_or_path: str | Path) -> None:
    """Raise unless there is such a file or folder, or it has the form of a hub name.

    Raises:
        DataError: As :func:`read_rows` would.
    """
    path = Path(name_or_path).expanduser()
    if not path.exists() and not _is_hub_name(name_or_path):
        raise DataError(_no_such_data(path))


def _no_such_data(path: Path) -> str:
    return (
        f"{path}: there is no such data file; give a .jsonl or .parquet file, a folder or a hub"
        " name (owner/name)"
    )


def _is_hub_name(name: str | Path) -> bool:
    text = str(name)
    looks_like_one = re.fullmatch(r"[\w.-]+/[\w.-]+", text) is not None
    is_file_name = text.endswith(_OURS)
    return looks_like_one and not is_file_name and not Path(text).parent.is_dir()


def _file(path: Path) -> Iterator[Row]:
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if path.suffix in _TABLES:
        yield from _data_set(
            _TABLES[path.suffix],
            where=str(path),
            remedy="copy the file again",
            data_files={"train": str(path)},
            split="train",
            streaming=True,
        )
        return
    if kind in _OTHERS or (path.suffix == ".gz" and kind in _TABLES):
        raise DataError(
            f"{path}: a file of this kind is not read; unpack it or save its rows as JSONL, CSV or Parquet"
        )
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            lines = enumerate(file, start=1)
            texts = (_text(line, f"{path}:{number}") for number, line in lines)
            yield from _csv(path, texts) if kind in (".csv", ".tsv") else _json(path, texts)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); check the file") from error


def _csv(path: Path, texts: Iterator[str]) -> Iterator[Row]:
    """Every cell is text, an empty one too: no other type is guessed."""
    reader = csv.reader(texts, delimiter="\t" if ".tsv" in path.suffixes else ",", strict=True)
    try:
        names = next(reader, [])
        for cells in reader:
            source = f"{path}:{reader.line_num}"
            if len(cells) != len(names) or len(set(names)) < len(names):
                raise DataError(
                    f"{source}: expected a cell for each of the {len(names)} different names of the first line, got"
                    f" {len(cells)}; quote cells that hold the separator"
                )
            yield Row(dict(zip(names, cells, strict=True)), source)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not valid CSV ({error})") from error


def _text(line: bytes, source: str) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source}: expected UTF-8 text ({error.reason} at byte {error.start} of the"
            " line); save the file as UTF-8"
        ) from error


def _json(path: Path, texts: Iterator[str]) -> Iterator[Row]:
    """One object a line, or one list of objects."""
    is_first = True
    for number, text in enumerate(texts, start=1):
        source = f"{path}:{number}"
        if not text.strip():
            continue
        if is_first and text.lstrip().startswith("["):
            whole = _parsed(text + "".join(texts), str(path), "expected one list")
            items = cast("list[object]", whole)
            for place, item in enumerate(items, start=1):
                yield Row(_object(item, f"{path}: item {place}"), f"{path}:item {place}")
            return
        is_first = False
        expected = "expected one object a line, or one list of objects"
        yield Row(_object(_parsed(text, source, expected), source), source)


def _parsed(text: str, source: str, expected: str) -> object:
    try:
        return strict_json.parse(text)
    except ValueError as error:
        raise DataError(f"{source}: not valid JSON ({error}); {expected}") from error


def _object(value: object, source: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            f"{source}: expected a JSON object, got {type(value).__name__}; expected one object a line"
        )
    return cast("dict[str, Any]", value)


_SAVED = ("dataset_dict.json", "state.json")
"""Of the folders that ``save_to_disk`` writes: of several splits, and of one data set."""


def _saved(path: Path, split: str) -> Iterator[Row]:
    from datasets import DatasetDict, load_from_disk

    try:
        with _quiet_datasets():
            found = load_from_disk(str(path))
    except Exception as error:  # whatever its readers raise
        raise DataError(
            f"{path}: datasets cannot read it ({type(error).__name__}: {one_line(error)}); save it again"
        ) from error
    where = str(path)
    if isinstance(found, DatasetDict):
        if split not in found:
            raise _no_split(path, split, list(map(str, found)))
        _say_which(path, split, [str(path / split)], [str(name) for name in found if name != split])
        found, where = found[split], f"{path}[{split}]"
    for number, row in enumerate(found.with_format(None), start=1):
        yield Row(dict(row), f"{where}:{number}")


def _folder(path: Path, split: str, subset: str | None) -> Iterator[Row]:
    """The files that ``datasets`` counts to the split, each read as it would be alone."""
    from datasets import load_dataset_builder

    where = f"{path}[{split}]"
    remedy = "check its files and the split (data.split, data.eval_split)"
    try:
        with _quiet_datasets():
            found: Any = load_dataset_builder(str(path), name=subset).config.data_files
            files = {str(name): list(map(str, files)) for name, files in found.items()}
    except Exception as error:  # datasets raises whatever its readers or fsspec raise
        raise DataError(
            f"{where}: datasets cannot read it ({type(error).__name__}: {one_line(error)}); {remedy}"
        ) from error
    if split not in files:
        raise _no_split(path, split, list(files))
    _say_which(path, split, files[split], [name for name in files if name != split], files)
    if all(Path(file).is_file() and file.endswith(_OURS) for file in files[split]):
        return chain.from_iterable(_file(Path(file)) for file in files[split])
    return _data_set(
        str(path), where=where, remedy=remedy, name=subset, split=split, streaming=True
    )


def _no_split(path: Path, split: str, splits: list[str]) -> DataError:
    return DataError(
        f"{path}[{split}]: there is no such split, only {', '.join(splits)}; set data.split (or data.eval_split)"
    )


def _say_which(
    path: Path,
    split: str,
    read: list[str],
    other_splits: list[str],
    files: dict[str, list[str]] | None = None,
) -> None:
    """What of a folder is read, and what is not."""
    from slackdlm.training.processes import this_process  # takes seconds to import

    known = {Path(file) for found in (files or {}).values() for file in found}
    there = sorted(file for file in path.rglob("*") if file.is_file()) if files else []
    left = [
        str(file.relative_to(path))
        for file in there
        if file.resolve() not in {other.resolve() for other in known}
        and not any(_NO_DATA.match(part) for part in file.relative_to(path).parts)
    ]
    if not this_process().is_main_process:
        return
    base = path.resolve()
    names = [Path(file).resolve() for file in read]
    shown = [
        str(name.relative_to(base)) if name.is_relative_to(base) else str(name) for name in names
    ]
    text = f"{path}[{split}]: reads {_few(shown)}"
    text += f"; other splits: {_few(other_splits)}" if other_splits else ""
    text += f"; files not used: {_few(left)}" if left else ""
    _LOG.log(logging.WARNING if left else logging.INFO, "%s", text)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(one_line(name, longest=80) for name in names[:5]) + more


def _data_set(path: str, *, where: str, remedy: str, **settings: Any) -> Iterator[Row]:
    from datasets import load_dataset  # takes seconds to import

    try:
        with _quiet_datasets():
            for number, row in enumerate(load_dataset(path, **settings), start=1):
                yield Row(dict(row), f"{where}:{number}")
    except Exception as error:  # datasets raises whatever its readers, the hub or fsspec raise
        raise DataError(
            f"{where}: datasets cannot read it ({type(error).__name__}: {one_line(error)}); {remedy}"
        ) from error


@contextmanager
def _quiet_datasets() -> Generator[None]:
    """What it logs as an error before raising it would be said twice."""
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
