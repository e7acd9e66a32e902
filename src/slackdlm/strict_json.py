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
        place = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(one_line(getattr(error, "msg", error), longest=120) + place) from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} does not fit a double")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(f"the key {one_line(twice, longest=40)!r} stands twice")
    return found
