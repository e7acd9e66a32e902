"""Which program wrote this file? Told by what its first entry holds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from slackdlm.errors import DataError
from slackdlm.jsonl import Row, as_object, parse, read_items, read_text

T = TypeVar("T")


class UnknownKindError(DataError):
    """A file that no known program wrote."""


Kind = tuple[Callable[[Row], bool], Callable[[Path], Sequence[T]]]
"""Whether a first entry is of this kind, and what reads such a file."""


def has(*keys: str) -> Callable[[Row], bool]:
    """Whether an entry holds all of these keys."""
    return lambda entry: entry.keys() >= set(keys)


def is_creative_writing_run(entry: Row) -> bool:
    """Whether this is the one object of a Creative-Writing-Bench run file."""
    return any(
        isinstance(run, dict) and "creative_tasks" in cast("Row", run) for run in entry.values()
    )


def read_kind(path: Path, kinds: Sequence[Kind[T]], *, what: str) -> Sequence[T]:
    """Everything in a file of one of these kinds.

    Args:
        path: The file.
        kinds: In the order they are tried.
        what: What it should hold, such as ``answers``; our own file is called ``answers.jsonl``.

    Raises:
        UnknownKindError: If the file is of none of them.
        DataError: If one of its entries cannot be used.
    """
    entry = _first_entry(path, what=what)
    for matches, read in kinds:
        if matches(entry):
            return read(path)
    keys = ", ".join(map(ascii, list(entry)[:12])) or "none"
    raise UnknownKindError(
        f"{path}: holds no {what} of a known kind (first entry has the keys {keys[:400]}); expected our {what}.jsonl "
        "or a file of Arena-Hard, MT-Bench, WildBench, Creative-Writing-Bench or AlpacaEval"
    )


def _first_entry(path: Path, *, what: str) -> Row:
    """The first object of a list, a JSONL or a Parquet file, or the one object of a whole file."""
    try:
        return next(iter(read_items(path, what=what)))[1]
    except DataError:
        if path.suffix == ".parquet" or not path.is_file():
            raise
        text = read_text(path, what=what)
        first: Any = text.lstrip().partition("\n")[0]
        if first.strip() != "{":
            raise
        return as_object(parse(text, where=str(path)), where=str(path))
