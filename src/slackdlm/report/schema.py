"""What may stand in a ``results.json``? One shape, checked before anything is drawn from it."""

from collections.abc import Mapping
from typing import Any, Final, cast

from slackdlm.errors import DataError, one_line

LARGEST: Final = 1e12
"""Numbers beyond it are none that a report could draw."""

_ESTIMATE: Final[dict[str, Any]] = {
    "value": "number?",
    "low": "number?",
    "high": "number?",
    "num_scored": "count",
    "num_total": "count",
}
_SETTING: Final[dict[str, Any]] = {
    "arm": "text",
    "temperature": "size",
    "steps": "count",
    "kind": "text",
    "rate": "share",
}
_DOSE: Final = dict.fromkeys(("asked", "displaced", "impossible", "lost", "committed"), "count")
SHAPE: Final[dict[str, Any]] = {
    "title": "text",
    "summary": ["text"],
    "warnings": ["text"],
    "run": {"slackdlm": "text", "created": "text", "seconds": {"*": "size"}, "config": {}},
    "arms": [{"name": "text", "label": "text", "description": "text"}],
    "quality": [
        {
            **_SETTING,
            "metrics": {"*": _ESTIMATE},
            "tokens_per_step?": "number?",
            "per_training_seed?": {"*": ["number?"]},
            "dose?": _DOSE,
        }
    ],
    "source": {"metrics": {"*": _ESTIMATE}},
    "win_rates": [
        {
            **_SETTING,
            "against": "text",
            **_ESTIMATE,
            "value": "share?",
            "p_value": "share?",
            "p_adjusted": "share?",
        }
    ],
    "training": [
        {
            "arm": "text",
            "seed": "count",
            "points": [
                {"step": "count"}
                | {f"{name}?": "number?" for name in ("loss", "eval_ce", "eval_objective")}
            ],
        }
    ],
    "replays": [
        {
            "arm": "text",
            "prompt": "text",
            "kind": "text",
            "rate": "share",
            "text": "text",
            "frames": [
                {"step": "count", "cells": [{"token": "text", "state": "text", "new": "flag"}]}
            ],
        }
    ],
    "samples": [dict.fromkeys(("prompt", "arm", "text", "canvas", "verdict"), "text")],
}
"""A word names a kind of value, ``?`` behind it allows None. A list holds any number of one shape. A mapping holds
these keys (``?`` behind a key: it may be missing; ``*``: any key) and possibly others, which nothing draws."""

_WORDS: Final = {
    "text": "a text",
    "number": f"a number up to {LARGEST:g}",
    "size": "a number of at least 0",
    "share": "a number from 0 to 1",
    "count": "a whole number of at least 0",
    "flag": "true or false",
}


def check_shape(value: object, shape: Any, *, where: str = "") -> None:
    """Raise unless a value has a shape.

    Args:
        value: What a JSON file held, NaN as None.
        shape: As in ``SHAPE``.
        where: Dotted path of the value, for the message.

    Raises:
        DataError: Naming the first place that does not fit.
    """
    if isinstance(shape, str):
        if not _fits(value, shape):
            refuse(value, _WORDS[shape.rstrip("?")], where)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            refuse(value, "a list", where)
        for place, item in enumerate(cast("list[object]", value)):
            check_shape(item, shape[0], where=f"{where}[{place}]")
    else:
        _check_keys(value, shape, where)


def _check_keys(value: object, shape: dict[str, Any], where: str) -> None:
    if not isinstance(value, Mapping):
        refuse(value, "an object", where)
    held = cast("Mapping[str, object]", value)
    for key, inner in shape.items():
        if key == "*":
            for name, item in held.items():
                check_shape(item, inner, where=f"{where}.{one_line(name, longest=40)}")
            continue
        name = key.removesuffix("?")
        path = f"{where}.{name}" if where else name
        if name in held:
            check_shape(held[name], inner, where=path)
        elif name == key:
            raise DataError(f"results: {path} is missing")


def refuse(value: object, expected: str, where: str) -> None:
    """DataError about one place."""
    kind = "nothing" if value is None else type(value).__name__
    shown = one_line(repr(value), longest=60) if isinstance(value, str | int | float) else kind
    raise DataError(f"results: {where or 'the file'}: expected {expected}, got {shown}")


def _fits(value: object, shape: str) -> bool:
    word = shape.rstrip("?")
    if value is None:
        return shape != word
    if word in ("text", "flag"):
        return isinstance(value, str if word == "text" else bool)
    if isinstance(value, bool) or not isinstance(value, int if word == "count" else int | float):
        return False
    lowest = -LARGEST if word == "number" else 0
    return lowest <= value <= (1 if word == "share" else LARGEST)
