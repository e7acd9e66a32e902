"""The few exceptions users see. Each message says where, what was expected, what came, what to do."""

import reprlib


class SlackDLMError(Exception):
    """Base of every error this package raises on purpose; the command line prints it and exits 2."""


class ConfigError(SlackDLMError, ValueError):
    """A recipe, a flag or an argument is wrong."""


class DataError(SlackDLMError, ValueError):
    """A file or a sample the user gave cannot be used."""


class CheckpointError(SlackDLMError, ValueError):
    """A model folder or training checkpoint is missing, torn or of another run."""


def counted(number: int, noun: str) -> str:
    """``1 step``, ``2 steps``, ``2 processes``; the number with its thousands apart."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def one_line(text: object, *, longest: int = 160) -> str:
    """Text of unknown origin in a message: as it is if that is one short printable line, else escaped and cut."""
    shown = str(text)[: 4 * longest]
    if not shown.isprintable():
        shown = " ".join(shown.split())
        shown = shown if shown.isprintable() else ascii(shown)[1:-1]
    return shown if len(shown) <= longest else f"{shown[:longest]}…"


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 2, 60, 60, 40
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = 4
repr_of = _REPR.repr
"""A value as Python writes it, however deep or long it is."""


def show(value: object) -> str:
    """A value in a message: one short line."""
    if value is None:
        return "nothing"
    text = repr_of(value)
    return f"{text[:100]}{'…' if len(text) > 100 else ''} ({type(value).__name__})"


EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_unicode": "printable text",
    "tuple_type": "a list",
    "too_short": "a list of {min_length} or more items",
    "unexpected_positional_argument": "fewer items",
    "too_long": "a list of {max_length} items",
    "dataclass_type": "a mapping of keys",
    "model_type": "an object",
    "literal_error": "{expected}",
    "list_type": "a list",
    "dict_type": "an object",
    "expected": "{what}",
    "finite_number": "a finite number",
    "greater_than_equal": "at least {ge}",
    "greater_than": "a number above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "a number below {lt}",
}
"""Kind of a pydantic error -> what was expected there."""
