"""Where do rows come from? JSONL, Parquet, a folder or a hub data set, one mapping at a time."""

import logging
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

from slackdlm import strict_json
from slackdlm.errors import DataError, one_line


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
        name_or_path: A ``.parquet`` file, any other file (JSONL), a folder that ``datasets`` reads,
            or ``owner/name`` on the hub.
        split: Of a folder or a hub data set.
        subset: Configuration of a hub data set.
        streaming: Read a hub data set row by row, without downloading it. Local ones always are.
        limit: At most so many.

    Returns:
        The rows; blank lines of JSONL are skipped and counted.

    Raises:
        DataError: While iterating, if something cannot be read; names the file and line.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file() and path.suffix != ".parquet":
        rows = _jsonl(path)
    elif path.is_file():
        files = {"train": str(path)}
        rows = _data_set(
            "parquet",
            where=str(path),
            remedy="copy the file again",
            data_files=files,
            split="train",
            streaming=True,
        )
    elif path.is_dir():
        where = f"{path}[{split}]"
        remedy = "check its files and the split (data.split, data.eval_split)"
        rows = _data_set(str(path), where=where, remedy=remedy, split=split, streaming=True)
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
    is_file_name = text.endswith((".jsonl", ".json", ".parquet"))
    return looks_like_one and not is_file_name and not Path(text).parent.is_dir()


def _jsonl(path: Path) -> Iterator[Row]:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                source = f"{path}:{number}"
                if not line.strip():
                    continue
                try:
                    row = strict_json.parse(line.decode("utf-8-sig"))
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{source}: expected UTF-8 text ({error.reason} at byte {error.start} of the"
                        " line); save the file as UTF-8"
                    ) from error
                except ValueError as error:
                    raise DataError(
                        f"{source}: not valid JSON ({error}); expected one object a line"
                    ) from error
                if not isinstance(row, dict):
                    raise DataError(
                        f"{source}: expected a JSON object, got {type(row).__name__}; expected one"
                        " object a line"
                    )
                yield Row(cast("dict[str, Any]", row), source)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the file") from error


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
    logger = logging.getLogger("datasets")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
