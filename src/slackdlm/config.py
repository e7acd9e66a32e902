"""The door of settings: YAML and ``--set`` in; frozen, checked records out; one line where something is wrong.

A block of settings is a class under :func:`settings`: each field has its type, bounds, default and, as the string
below it, its help. Recipes, ``--set``, flags and guides all come from these fields.
"""

import ast
import difflib
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, cast, dataclass_transform, get_args, get_origin

import pydantic.dataclasses
from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError

from slackdlm.errors import EXPECTED, ConfigError, one_line, repr_of, show
from slackdlm.strict_yaml import read_yaml

T = TypeVar("T")

HIGHEST = 2**53
"""Largest whole number of a setting: every one up to it is a double."""

# Types of settings. Strict: 1 is no flag, true is no number, "3" is no number; a whole number is a number.
Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict()]
Whole = Annotated[int, Strict(), Ge(0), Le(HIGHEST)]
Count = Annotated[int, Strict(), Ge(1), Le(HIGHEST)]
Real = Annotated[float, Strict(), Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Strict(), Field(allow_inf_nan=False), Ge(0)]
Positive = Annotated[float, Strict(), Field(allow_inf_nan=False), Gt(0)]
Share = Annotated[float, Strict(), Ge(0), Le(1)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def settings(cls: type[T]) -> type[T]:
    """A frozen dataclass of keyword arguments that are checked, however it is made.

    Raises:
        ConfigError: When one is made, also by ``dataclasses.replace``: names the class, the key, what was expected
            and what came.
    """
    checked: Any = pydantic.dataclasses.dataclass(
        cls, frozen=True, kw_only=True, slots=True, config=ConfigDict(extra="forbid")
    )
    make = checked.__init__

    def __init__(self: Any, **values: Any) -> None:  # noqa: N807
        try:
            make(self, **values)
        except ValidationError as error:
            raise ConfigError(_explained(error, checked, name=cls.__name__)) from error

    checked.__init__ = __init__
    return checked


def load(
    cls: type[T],
    file: Path | None,
    overrides: Sequence[str] = (),
    *,
    blocks: str = "blocks of keys",
) -> T:
    """Settings from a YAML file (None: none), overridden by ``a.b=value`` texts.

    Raises:
        ConfigError: If the file is missing or no YAML mapping, or a key or value is wrong; names the file and the
            dotted key.
    """
    mapping = {} if file is None else read_mapping(file, blocks=blocks)
    apply_overrides(mapping, overrides, cls)
    return build(cls, mapping, where=file)


def build(cls: type[T], mapping: object, *, where: object = None) -> T:
    """Settings from plain values, nested blocks included; ConfigError as in :func:`load`."""
    prefix = "" if where is None else f"{where}: "
    try:
        return TypeAdapter(cls).validate_python(mapping)
    except ValidationError as error:
        raise ConfigError(f"{prefix}{_explained(error, cls, name='recipe')}") from error


def help_of(cls: type[Any]) -> dict[str, str]:
    """What each field of a block says it is: the string below it."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    statements = cast("ast.ClassDef", body).body
    helps: dict[str, str] = {}
    for statement, after in pairwise(statements):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = after.value if isinstance(after, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                helps[statement.target.id] = " ".join(text.value.split())
    return helps


def flatten(mapping: Mapping[str, Any], *, where: str = "") -> dict[str, Any]:
    """A nested mapping as ``{"a.b": value}``, to compare two recipes key by key."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        path = f"{where}.{key}" if where else key
        if isinstance(value, Mapping):
            flat.update(flatten(cast("Mapping[str, Any]", value), where=path))
        else:
            flat[path] = list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
    return flat


def apply_overrides(mapping: dict[str, Any], overrides: Sequence[str], cls: type[Any]) -> None:
    """Write ``a.b=value`` overrides into a nested mapping.

    Where the key holds text, all behind the ``=`` is the value, whatever it would be in YAML: `` #`` starts no
    comment and ``2024`` is no number. ``null`` unsets a key that may be unset. Other values are read as YAML.

    Args:
        mapping: Changed in place; blocks that are not there are made.
        overrides: As given to ``--set``.
        cls: The settings that the mapping is of.

    Raises:
        ConfigError: If an override has no ``=``, no key, no value, a value that is no YAML or has a comment, or goes
            through a plain value.
    """
    for override in overrides:
        path, sign, text = override.partition("=")
        keys = path.strip().split(".")
        shown = f"--set {_shown_key(override)}"
        if not sign or not all(keys):
            raise ConfigError(f"{shown}: expected key.subkey=value, for example training.steps=100")
        if not text.strip():
            raise ConfigError(f"{shown}: there is no value; null stands for none")
        try:
            value = _override(text, _hint(cls, keys))
        except ConfigError as error:
            raise ConfigError(f"{shown}: the value is {error}") from error
        block = mapping
        for depth, key in enumerate(keys[:-1]):
            # An absent or empty block is made, so that `--set` can fill it.
            if block.get(key) is None:
                block[key] = {}
            if not isinstance(block[key], dict):
                name = _shown_key(".".join(keys[: depth + 1]))
                raise ConfigError(f"{shown}: {name} is a value, not a block of keys")
            block = block[key]
        block[keys[-1]] = value


def _override(text: str, hint: Any) -> object:
    options = [_bare(option) for option in get_args(hint) or (hint,)]
    is_unset = text.strip() == "null" and NoneType in options
    if not is_unset and (hint is str or str in options):
        return text
    value = read_yaml(text)
    try:
        is_cut = read_yaml(f"{text} x") == value  # in a comment, more changes nothing
    except ConfigError:
        is_cut = False
    if is_cut:
        raise ConfigError(
            "cut short by ' #', which starts a comment in YAML; leave the comment out"
        )
    return value


def _bare(hint: Any) -> Any:
    """A type without its bounds."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _hint(cls: Any, keys: Sequence[object]) -> Any:
    """Type of the setting at a dotted path; None where there is none."""
    hint: Any = cls
    for key in keys:
        if isinstance(key, int):
            continue
        block = next((o for o in (hint, *get_args(hint)) if is_dataclass(o)), None)
        known = {} if block is None else {each.name: each.type for each in fields(block)}
        hint = known.get(cast("str", key))
        if hint is None:
            return None
        hint = _bare(hint)
    return hint


def read_mapping(file: Path, *, blocks: str) -> dict[str, Any]:
    """The top-level keys of a YAML file.

    Args:
        file: The recipe.
        blocks: What it should hold, for the message.

    Raises:
        ConfigError: If the file is missing, cannot be read or is no YAML mapping.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: there is no such recipe file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: expected UTF-8 text ({error}); save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); give a YAML file") from error
    try:
        mapping = read_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    if not isinstance(mapping, dict):
        raise ConfigError(f"{file}: expected {blocks}")
    return dict(cast("dict[str, Any]", mapping))


def _explained(error: ValidationError, cls: type[Any], *, name: str) -> str:
    """One line about the first thing that is wrong; misspelt keys first, since they explain missing ones."""
    errors = error.errors(include_url=False)
    unknown = ("unexpected_keyword_argument", "extra_forbidden", "invalid_key")
    first = next((each for each in errors if each["type"] in unknown), errors[0])
    keys, kind, bounds = first["loc"], first["type"], first.get("ctx", {})
    path = ".".join(str(key) for key in keys if not isinstance(key, int) or kind == "invalid_key")
    if name not in ("recipe", ""):
        path = f"{name}.{path}" if path else name
    path = _shown_key(path) or name
    if kind in unknown:
        return f"{path}: unknown key; {_suggestion(cls, keys)}"
    if kind == "missing" and not isinstance(keys[-1], int):
        remedy = f"; add it or pass --set {path}=..." if name == "recipe" else ""
        return f"{path}: this key is required and missing{remedy}"
    if kind == "value_error":  # of a rule that concerns several keys, which names them
        return str(bounds["error"])
    shown = show(first["input"])
    if kind == "literal_error":
        choices = choices_of(_hint(cls, keys))
        close = difflib.get_close_matches(str(first["input"])[:40], choices, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"{path}: expected one of {', '.join(choices)}, got {shown}{hint}"
    if kind == "missing":  # an item of a list of fixed length
        kind, bounds = "too_long", {"max_length": len(get_args(_hint(cls, keys)))}
    whole = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in bounds.items()}
    expected = EXPECTED[kind].format(**whole)
    return f"{path}: expected {expected}, got {shown}"


def choices_of(hint: Any) -> tuple[str, ...]:
    """The values that a setting of this type may have, if they are a fixed few; else none."""
    literals = (o for o in (hint, *get_args(hint)) if get_origin(o) is Literal)
    return tuple(str(choice) for literal in literals for choice in get_args(literal))


def _suggestion(cls: type[Any], keys: Sequence[object]) -> str:
    parent = cls if len(keys) < 2 else _hint(cls, keys[:-1])
    block = next(o for o in (parent, *get_args(parent)) if is_dataclass(o))
    known = [each.name for each in fields(block) if each.init]
    close = difflib.get_close_matches(str(keys[-1])[:80], known, n=1, cutoff=0.5)
    prefix = "".join(f"{key}." for key in keys[:-1])
    return f"did you mean {prefix}{close[0]}?" if close else f"known keys: {', '.join(known)}"


def _shown_key(value: object) -> str:
    """A key or an argument in a message."""
    return one_line(value if isinstance(value, str) else repr_of(value), longest=80)


__all__ = [
    "HIGHEST", "Count", "Flag", "NonNegative", "Positive", "Real", "Share", "Text", "Texts", "Whole",
    "apply_overrides", "asdict", "build", "choices_of", "flatten", "help_of", "load", "read_mapping", "settings",
]  # fmt: skip
