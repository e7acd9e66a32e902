"""JSON without surprises: no NaN, no number beyond a double, no key twice, no bottomless nesting."""

import json
import math
from typing import Any, NoReturn

from slackdlm.errors import one_line


def parse(text: str) -> object:
    """One JSON value.

    Raises:
        ValueError: With a short reason on one line.
    """
    try:
        return json.loads(
            text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_once
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        position = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(one_line(getattr(error, "msg", error), longest=120) + position) from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} does not fit a double")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        duplicate = next(key for position, key in enumerate(keys) if key in keys[:position])
        raise ValueError(f"duplicate key {one_line(duplicate, longest=40)!r}")
    return row
