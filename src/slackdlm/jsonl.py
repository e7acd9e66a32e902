"""JSON files of other people: every line is checked, every error names file, line and field.

Strict JSON: UTF-8, no NaN or Infinity, no number beyond a double, no key twice, nesting of a sane depth. Lines end
at line feeds alone, so U+2028 inside a text ends none.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from slackdlm import strict_json
from slackdlm.atomic import write_text
from slackdlm.errors import EXPECTED, DataError, one_line, show

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


def check(kind: Callable[..., T], value: object, *, where: str, key: str = "") -> T:
    """The value as a record of that kind: a pydantic model or a dataclass of the types below.

    Args:
        kind: The class, or one of the types below.
        value: What a file holds.
        where: File and line, for messages.
        key: Under which the value stands, if it is one field.

    Raises:
        DataError: About the first thing that is wrong: where, which key, what was expected, what came.
    """
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise DataError(f"{where}: {_explained(error, kind, key)}") from error


def read_as(kind: Callable[..., T], path: Path, *, what: str) -> Iterator[tuple[str, T]]:
    """Every object of a file as a record, with its place; errors as in `read_items` and `check`."""
    for where, row in read_items(path, what=what):
        yield where, check(kind, row, where=where)


def check_field(kind: Any, row: Row, key: str, *, where: str) -> Any:
    """The value of one key, of such a type; errors as in `check`."""
    if key not in row:
        raise DataError(f"{where}: {_missing(key, row)}")
    return check(kind, row[key], where=where, key=key)


_adapter = cast("Callable[[Any], TypeAdapter[Any]]", cache(TypeAdapter))


def _explained(error: ValidationError, kind: Any, key: str) -> str:
    errors = error.errors(include_url=False)
    # An unknown key first: misspelt, it explains a missing one.
    unknown = ("unexpected_keyword_argument", "extra_forbidden")
    first = next((each for each in errors if each["type"] in unknown), errors[0])
    key = one_line(".".join(map(str, first["loc"])) or key, longest=60)
    given, context = first["input"], first.get("ctx", {})
    if first["type"] in unknown:
        known = ", ".join(each.name for each in fields(kind))
        return f"unknown key {key!a}; known keys: {known}"
    if first["type"] == "value_error":  # of a rule that concerns several keys, which names them
        return str(context["error"])
    if first["type"] == "missing":
        return _missing(key, given)
    expected = EXPECTED[first["type"]].format(**context)
    return f"expected {expected}{f' in {key!r}' if key else ''}, got {show(given)}"


def _missing(key: str, row: Iterable[object]) -> str:
    keys = ", ".join(map(ascii, list(row)[:12])) or "none"
    return f"expected {one_line(key, longest=40)!a}, which is missing; keys: {keys[:200]}"


def _expected(what: str) -> ValueError:
    return PydanticCustomError("expected", "{what}", {"what": what})


def must(is_right: Callable[[Any], bool], what: str) -> PlainValidator:
    """What a value must be. Unlike pydantic's own, texts may hold lone surrogates: judges write them."""

    def checked(value: object) -> object:
        if not is_right(value):
            raise _expected(what)
        return value

    return PlainValidator(checked)


def one_of(*choices: object) -> PlainValidator:
    """One of these values, of its very type: true is no 1."""
    listed = f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"
    return must(lambda value: any(type(value) is type(c) and value == c for c in choices), listed)


def _id(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise _expected("an id (text or a whole number)")
    return str(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _expected("a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _expected("a finite number that fits a double")
    return number


# Types of fields.
Text = Annotated[str, must(lambda value: isinstance(value, str), "text")]
Id = Annotated[str, PlainValidator(_id)]
Number = Annotated[float, PlainValidator(_number)]
Whole = Annotated[int, Strict()]
Object = Annotated[Mapping[str, Any], must(lambda value: isinstance(value, dict), "an object")]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]


class FileRow(BaseModel):
    """One row of another tool's file: the fields that are used, and in `rest` what else it holds."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @property
    def rest(self) -> Row:
        """The fields of the row that its class does not name."""
        return self.model_extra or {}


def add_once(seen: set[T], key: T, problem: str) -> None:
    """DataError of that text if the key was added before."""
    if key in seen:
        raise DataError(problem)
    seen.add(key)


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
