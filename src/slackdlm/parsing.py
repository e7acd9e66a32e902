"""From a YAML mapping to frozen dataclasses, with errors that name and suggest dotted keys."""

import difflib
import re
import reprlib
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from slackdlm.errors import ConfigError, one_line

T = TypeVar("T")


HIGHEST = 2**53
"""Largest whole number a recipe may hold: every one up to it is a double."""


class _Loader(yaml.SafeLoader):
    """YAML whose numbers are those of YAML 1.2, and whose keys stand once.

    By the library's 1.1 ``1e-5`` is text, ``1:30`` is 90, ``010`` is 8 and ``2024-01-01`` a date; here the first is
    a number and the others are texts.
    """

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        found: dict[Hashable, object] = {}
        for key_node, value_node in node.value:
            is_text = isinstance(key_node, yaml.ScalarNode)
            key: Any = self.construct_object(key_node) if is_text else None
            if not is_text or key in found:
                what = f"the key {_name(key)} stands twice" if is_text else "a key is no text"
                raise yaml.MarkedYAMLError(problem=what, problem_mark=key_node.start_mark)
            found[key] = self.construct_object(value_node, deep=deep)
        return found

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge keys (``<<``) are not expanded: they can grow without bound."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("bool", "null")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^([-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)


def read_yaml(text: str) -> object:
    """Plain values of one YAML document.

    Raises:
        ConfigError: If the text is no YAML, a key stands twice or is no text; says where, on one line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = error.problem or error.context or "it cannot be read"
        raise ConfigError(f"not valid YAML ({place}{one_line(reason)})") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # The library's own constructors raise these on tags such as !!int with other text.
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"not valid YAML ({one_line(what)})") from error


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
            raise ConfigError(_unknown(_name(key), known=known, where=where))
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
    """Raise unless a number is at least ``lowest`` and at most ``HIGHEST``.

    Raises:
        ConfigError: Naming the key.
    """
    if not value >= lowest:
        raise ConfigError(f"{path}: expected at least {lowest}, got {_show(value)}")
    if value > HIGHEST:
        raise ConfigError(f"{path}: expected at most 2**53, got {_show(value)}")


def apply_overrides(mapping: dict[str, Any], overrides: list[str], cls: type[Any]) -> None:
    """Write ``a.b=value`` overrides into a nested mapping.

    All that stands behind ``=`` is the value: as it is where the field is text, even if it looks like a number or
    holds `` #``; else as YAML.

    Args:
        mapping: Written into.
        overrides: What was given.
        cls: The dataclass that the mapping is for; it says which fields are text.

    Raises:
        ConfigError: If an override has no ``=``, no key, no value, a value that is no YAML or has a comment, or goes
            through a plain value.
    """
    for override in overrides:
        path, sign, text = override.partition("=")
        keys = path.strip().split(".")
        shown = f"--set {_name(override)}"
        if not sign or not all(keys):
            raise ConfigError(f"{shown}: expected key.subkey=value, for example training.steps=100")
        if not text.strip():
            raise ConfigError(f"{shown}: there is no value; null stands for none")
        try:
            value = text if _is_text(cls, keys, text) else _read_all(text)
        except ConfigError as error:
            raise ConfigError(f"{shown}: the value is {error}") from error
        block = mapping
        for depth, key in enumerate(keys[:-1]):
            # An absent or empty block is made, so that `--set` can fill it.
            if block.get(key) is None:
                block[key] = {}
            if not isinstance(block[key], dict):
                name = _name(".".join(keys[: depth + 1]))
                raise ConfigError(f"{shown}: {name} is a value, not a block of keys")
            block = block[key]
        block[keys[-1]] = value


def _is_text(cls: type[Any], keys: list[str], text: str) -> bool:
    """Whether a value is meant as it stands: the field holds text, and it is not the null of one that may be none."""
    hint: Any = cls
    for key in keys:
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        block = next((option for option in options if is_dataclass(option)), None)
        hint = get_type_hints(block).get(key) if block else None
    if get_origin(hint) in (Union, UnionType) and text.strip() == "null":
        return False
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return str in options


def _read_all(text: str) -> object:
    """One YAML value that is all of the text."""
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
        text = value[:40] if isinstance(value, str) else ""
        close = difflib.get_close_matches(text, choices, n=1)
        hint_text = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(
            f"{path}: expected one of {', '.join(choices)}, got {_show(value)}{hint_text}"
        )
    if origin is tuple:
        return _convert_list(value, get_args(hint), path=path)
    if hint is float and type(value) is int and abs(value) <= HIGHEST:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{path}: expected {_NAMES[hint]}, got {_show(value)}")
    return value


def _convert_list(value: object, parts: tuple[Any, ...], *, path: str) -> tuple[Any, ...]:
    items = cast("list[object]", value) if isinstance(value, list | tuple) else []
    if parts[-1] is Ellipsis:
        parts, expected = parts[:1] * len(items), "at least one item"
    else:
        expected = f"{len(parts)} numbers"
    if not items or len(items) != len(parts):
        raise ConfigError(f"{path}: expected a list of {expected}, got {_show(value)}")
    return tuple(_convert(item, part, path=path) for item, part in zip(items, parts, strict=True))


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _unknown(key: str, *, known: list[str], where: str) -> str:
    path = f"{where}.{key}" if where else key
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    prefix = f"{where}." if where else ""
    hint = f"did you mean {prefix}{close[0]}?" if close else f"known keys: {', '.join(known)}"
    return f"{path}: unknown key; {hint}"


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 2, 60, 60, 40
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = 4


def _show(value: object) -> str:
    """A value in a message: one short line, however deep or long it is."""
    if value is None:
        return "nothing"
    shown = _REPR.repr(value)
    return f"{shown[:100]}{'…' if len(shown) > 100 else ''} ({type(value).__name__})"


def _name(value: object) -> str:
    """A key or an argument in a message."""
    return one_line(value if isinstance(value, str) else _REPR.repr(value), longest=80)
