"""From a YAML mapping to frozen dataclasses, with errors that name and suggest dotted keys."""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from slackdlm.errors import ConfigError

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML whose ``1e-5`` is a number, as in YAML 1.2; by the library's 1.1 it is text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(text: str) -> object:
    """Plain values of one YAML document.

    Raises:
        yaml.YAMLError: If the text is no YAML.
    """
    return yaml.load(text, Loader=_Loader)


def read_mapping(file: Path, *, blocks: str) -> dict[str, Any]:
    """The top-level keys of a YAML file.

    Args:
        file: The recipe.
        blocks: What it should hold, for the message.

    Raises:
        ConfigError: If the file is missing, cannot be read or is no YAML mapping.
    """
    try:
        mapping = read_yaml(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: there is no such recipe file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: expected UTF-8 text ({error}); save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); give a YAML file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML ({error})") from error
    if not isinstance(mapping, dict):
        raise ConfigError(f"{file}: expected {blocks}")
    return dict(cast("dict[str, Any]", mapping))


def build(cls: type[T], mapping: object, *, where: str = "") -> T:
    """One dataclass out of a plain mapping, nested dataclasses included.

    Args:
        cls: A dataclass whose fields are int, float, bool, str, Literal, tuples, dataclasses or
            ``X | None``.
        mapping: What the YAML held.
        where: Dotted path of this block, for the messages; empty at the top.

    Returns:
        The dataclass. An int is accepted for a float; nothing else is converted.

    Raises:
        ConfigError: On an unknown, missing or wrongly typed key; the message holds its full dotted
            path.
    """
    name = where or "recipe"
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{name}: expected a mapping of keys, got {_show(mapping)}")
    given = cast("Mapping[Any, object]", mapping)
    hints = get_type_hints(cls)
    settable = [field for field in fields(cast(Any, cls)) if not field.metadata.get("not_a_key")]
    known = [field.name for field in settable]
    for key in given:
        if key not in known:
            raise ConfigError(_unknown(str(key), known=known, where=where))
    values: dict[str, Any] = {}
    for field in settable:
        path = f"{where}.{field.name}" if where else field.name
        if field.name in given:
            values[field.name] = _convert(given[field.name], hints[field.name], path=path)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(
                f"{path}: this key is required and missing; add it or pass --set {path}=..."
            )
    return cls(**values)


def at_least(value: float, lowest: int, *, path: str) -> None:
    """Raise unless a number is finite and at least ``lowest``.

    Raises:
        ConfigError: Naming the key.
    """
    if not lowest <= value < math.inf:
        raise ConfigError(f"{path}: expected at least {lowest}, got {value}")


def apply_overrides(mapping: dict[str, Any], overrides: list[str]) -> None:
    """Write ``a.b=value`` overrides into a nested mapping, values parsed as YAML.

    Raises:
        ConfigError: If an override has no ``=``, no key, a value that is no YAML, or goes through a
            plain value.
    """
    for override in overrides:
        path, sign, text = override.partition("=")
        keys = path.strip().split(".")
        if not sign or not all(keys):
            raise ConfigError(
                f"--set {override}: expected key.subkey=value, for example training.steps=100"
            )
        try:
            value = read_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override}: the value is not valid YAML ({error})") from error
        block = mapping
        for depth, key in enumerate(keys[:-1]):
            # An absent or empty block is made, so that `--set` can fill it.
            if block.get(key) is None:
                block[key] = {}
            if not isinstance(block[key], dict):
                name = ".".join(keys[: depth + 1])
                raise ConfigError(f"--set {override}: {name} is a value, not a block of keys")
            block = block[key]
        block[keys[-1]] = value


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


def _convert(value: object, hint: Any, *, path: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        options = [option for option in get_args(hint) if option is not NoneType]
        return None if value is None else _convert(value, options[0], path=path)
    if is_dataclass(hint):
        return build(cast("type[Any]", hint), value, where=path)
    if origin is Literal:
        choices = [str(choice) for choice in get_args(hint)]
        if value in choices:
            return value
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint_text = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(
            f"{path}: expected one of {', '.join(choices)}, got {_show(value)}{hint_text}"
        )
    if origin is tuple:
        parts = get_args(hint)
        if parts[-1] is Ellipsis:
            return _convert_list(value, parts[0], path=path)
        if not isinstance(value, list | tuple) or len(cast("list[Any]", value)) != len(parts):
            raise ConfigError(
                f"{path}: expected a list of {len(parts)} numbers, got {_show(value)}"
            )
        items = cast("list[object]", value)
        return tuple(
            _convert(item, part, path=path) for item, part in zip(items, parts, strict=True)
        )
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{path}: expected {_NAMES[hint]}, got {_show(value)}")
    return value


def _convert_list(value: object, part: Any, *, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f"{path}: expected a list of at least one item, got {_show(value)}")
    return tuple(_convert(item, part, path=path) for item in cast("list[object]", value))


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _unknown(key: str, *, known: list[str], where: str) -> str:
    path = f"{where}.{key}" if where else key
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    prefix = f"{where}." if where else ""
    hint = f"did you mean {prefix}{close[0]}?" if close else f"known keys: {', '.join(known)}"
    return f"{path}: unknown key; {hint}"


def _show(value: object) -> str:
    return "nothing" if value is None else f"{value!r} ({type(value).__name__})"
