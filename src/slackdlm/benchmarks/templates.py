"""Judge prompts as published, in ``prompts``, their licences in the NOTICE there; and what a reply to one says once."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TypeVar

T = TypeVar("T")


@cache
def template(name: str) -> str:
    """The text of one of the files in ``prompts``."""
    file = resources.files("slackdlm.benchmarks") / "prompts" / name
    return file.read_text(encoding="utf-8")


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with every ``{key}`` of the values filled in one pass: a place inside an answer stays what it is."""
    places = re.compile("|".join(re.escape(f"{{{key}}}") for key in values))
    return places.sub(lambda match: values[match[0][1:-1]], text)


def only(*readings: Sequence[T]) -> T | None:
    """The one value that the first reading without a contradiction gives; None if each is empty or gives several."""
    return next((reading[0] for reading in readings if len(set(reading)) == 1), None)
