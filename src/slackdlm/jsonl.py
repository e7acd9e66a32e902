"""JSON files of other people: every line is checked, every error names file, line and field.

Strict JSON: UTF-8, no NaN or Infinity, no number beyond a double, no key twice, nesting of a sane depth. Lines end
at line feeds alone, so U+2028 inside a text ends none.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from slackdlm import strict_json
from slackdlm.atomic import write_text
from slackdlm.errors import DataError

Row = dict[str, Any]
T = TypeVar("T")


def read_rows(path: Path, *, what: str) -> Iterator[tuple[str, Row]]:
    """Every object of a JSONL file with its place ``file:line``; blank lines are skipped.

    Args:
        path: The file.
        what: What its lines are, such as ``Arena-Hard answers``, for messages.

    Raises:
        DataError: If the file is missing, not UTF-8 or holds no line, or a line is no JSON object.
    """
    found = False
    for number, line in enumerate(read_text(path, what=what).split("\n"), start=1):
        if not line.strip():
            continue
        found = True
        where = f"{path}:{number}"
        yield where, as_object(parse(line, where=where), where=where)
    if not found:
        raise DataError(f"{path}: the file holds no line; expected {what}")


def read_items(path: Path, *, what: str) -> Iterator[tuple[str, Row]]:
    """Every object of a JSON list, a JSONL or a Parquet file, with its place; errors as in `read_rows`."""
    if path.suffix == ".parquet":
        yield from _read_parquet(path, what=what)
        return
    if not read_text(path, what=what).lstrip().startswith("["):
        yield from read_rows(path, what=what)
        return
    items = read_json(path, what=what)
    if not isinstance(items, list) or not items:
        raise DataError(f"{path}: expected a list of {what}, got {show(items)}")
    for number, item in enumerate(cast("list[object]", items)):
        where = f"{path}: item {number}"
        yield where, as_object(item, where=where)


def read_json(path: Path, *, what: str) -> object:
    """The one JSON value of a whole file; errors as in `read_rows`."""
    return parse(read_text(path, what=what), where=str(path))


def read_text(path: Path, *, what: str) -> str:
    """A UTF-8 file without its byte-order mark; DataError if it is missing or something else."""
    _check_file(path, what=what)
    try:
        held = path.read_bytes()
        if held.startswith(b"\x1f\x8b"):
            raise DataError(f"{path}: compressed with gzip; unpack it, {what} are read as text")
        return held.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text (byte {error.start}); expected {what}, so save it as UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected {what}") from error


def parse(text: str, *, where: str) -> object:
    """One strict JSON value; DataError names ``where``."""
    try:
        return strict_json.parse(text)
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error})") from error


def write_rows(path: Path, rows: Iterable[Row], *, ascii_only: bool = False) -> None:
    """One object a line; the file is replaced only when every line is there."""
    write_text(path, "".join(dump(row, ascii_only=ascii_only) + "\n" for row in rows))


def write_items(path: Path, rows: Sequence[Row]) -> None:
    """One JSON list; the file is replaced only when all of it is there."""
    write_text(path, dump(list(rows), indent=2) + "\n")


def dump(value: object, *, ascii_only: bool = False, indent: int | None = None) -> str:
    """Strict JSON that can always be written: a lone surrogate is escaped, NaN is an error."""
    text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False, indent=indent)
    if any("\ud800" <= char <= "\udfff" for char in text):
        return json.dumps(value, ensure_ascii=True, allow_nan=False, indent=indent)
    return text


def as_object(value: object, *, where: str) -> Row:
    """The value if it is a JSON object, else DataError."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, got {show(value)}")
    return cast("Row", value)


def get_text(row: Row, key: str, *, where: str) -> str:
    """A text field, else DataError."""
    value = row.get(key)
    if not isinstance(value, str):
        refuse(row, key, "a text", where)
    return value


def get_optional_text(row: Row, key: str, *, where: str) -> str | None:
    """A text field, None where it is null or missing, else DataError."""
    return None if row.get(key) is None else get_text(row, key, where=where)


def get_id(row: Row, key: str, *, where: str) -> str:
    """An id as text, written as text or as a whole number, else DataError."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        refuse(row, key, "an id (text or a whole number)", where)
    return str(value)


def get_list(row: Row, key: str, *, where: str) -> list[Any]:
    """A list field, else DataError."""
    value = row.get(key)
    if not isinstance(value, list):
        refuse(row, key, "a list", where)
    return cast("list[Any]", value)


def get_texts(row: Row, key: str, *, where: str) -> tuple[str, ...]:
    """A list of texts, at least one, else DataError."""
    values = get_list(row, key, where=where)
    if not values or not all(isinstance(value, str) for value in values):
        refuse(row, key, "a list of texts, at least one", where)
    return tuple(values)


def get_object(row: Row, key: str, *, where: str) -> Row:
    """An object field, else DataError."""
    value = row.get(key)
    if not isinstance(value, dict):
        refuse(row, key, "an object", where)
    return cast("Row", value)


def get_number(row: Row, key: str, *, where: str) -> float:
    """A finite number field, else DataError; a bool is none."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(row, key, "a number", where)
    try:
        return float(value)
    except OverflowError:
        refuse(row, key, "a number that fits a double", where)


def add_once(seen: set[T], key: T, problem: str) -> None:
    """DataError of that text if the key was added before."""
    if key in seen:
        raise DataError(problem)
    seen.add(key)


def refuse(row: Row, key: str, expected: str, where: str) -> NoReturn:
    """DataError about one field: what was expected there and what stands there instead."""
    if key not in row:
        known = ", ".join(map(ascii, list(row)[:12])) or "none"
        raise DataError(f"{where}: expected {expected} in {key!r}, which is missing; keys: {known}")
    raise DataError(f"{where}: expected {expected} in {key!r}, got {show(row[key])}")


def show(value: object) -> str:
    """A value in a message, short whatever it is."""
    shown = ascii(value)
    kind = "nothing" if value is None else type(value).__name__
    return f"{shown[:60]}{'…' if len(shown) > 60 else ''} ({kind})"


def _check_file(path: Path, *, what: str) -> None:
    if not path.is_file():
        what_is_there = "it is a folder" if path.is_dir() else "there is no such file"
        raise DataError(f"{path}: {what_is_there}; expected {what}")


def _read_parquet(path: Path, *, what: str) -> Iterator[tuple[str, Row]]:
    _check_file(path, what=what)
    from pyarrow import ArrowException, parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file; expected {what}") from error
    for number, row in enumerate(rows):
        yield f"{path}: row {number}", row
