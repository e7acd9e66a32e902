"""The decoding replay: frames of canvases, packed for the page's player and drawn once without it.

Everything a model wrote travels as JSON inside a script element of a type that browsers do not run, and the
player puts it on the page as text, never as markup.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from slackdlm.errors import DataError
from slackdlm.report.results import Results, arm_labels
from slackdlm.report.tables import percent

STATES: Final = ("masked", "token", "slack", "end", "displaced", "substituted")
SHOWN: Final = {"masked": "", "slack": "slack", "end": "end"}
"""What a cell of these states reads as, whatever its token is called."""
KINDS: Final = {
    "none": "no intervention",
    "shift": "shifted by one place",
    "substitute": "substituted in place",
    "drop": "commits dropped",
    "swap": "swapped with a neighbour",
}
ESCAPES: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&'\u2028\u2029"}


class Scene(NamedTuple):
    """All arms decoding one prompt under one intervention, to be watched side by side."""

    title: str
    prompt: str
    tracks: tuple[Mapping[str, Any], ...]
    """Per arm: ``label``, ``text`` and ``frames``; a frame is ``{"step", "cells"}``."""


def scenes(results: Results) -> list[Scene]:
    """The replays grouped by prompt and intervention, in the order of the file.

    Raises:
        DataError: If a cell is in a state that the player does not know.
    """
    return arranged(results["replays"], arm_labels(results))


def arranged(replays: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> list[Scene]:
    """Replays grouped by prompt and intervention; errors as in `scenes`."""
    grouped: dict[tuple[str, str, float], list[Mapping[str, Any]]] = {}
    for replay in replays:
        _check(replay)
        if replay["frames"]:
            key = (replay["prompt"], replay["kind"], replay["rate"])
            track = {"label": labels[replay["arm"]], **replay}
            grouped.setdefault(key, []).append(track)
    return [
        Scene(title=_title(kind, rate), prompt=prompt, tracks=tuple(tracks))
        for (prompt, kind, rate), tracks in grouped.items()
    ]


def packed(shown: Sequence[Scene]) -> list[dict[str, Any]]:
    """The scenes as small JSON: a cell is ``[text, index of its state, 1 if new]``."""
    return [
        {
            "title": scene.title,
            "prompt": scene.prompt,
            "tracks": [
                {
                    "label": track["label"],
                    "text": track["text"],
                    "frames": [
                        {
                            "step": frame["step"],
                            "cells": [
                                [cell_text(cell), STATES.index(cell["state"]), int(cell["new"])]
                                for cell in frame["cells"]
                            ],
                        }
                        for frame in track["frames"]
                    ],
                }
                for track in scene.tracks
            ],
        }
        for scene in shown
    ]


def cell_text(cell: Mapping[str, Any]) -> str:
    """What a cell reads as: its token, or the name of its state where the token is no word."""
    return SHOWN[cell["state"]] if cell["state"] in SHOWN else cell["token"]


def script_json(value: Any) -> str:
    r"""JSON that may stand inside a script element: it can neither close it nor open a comment.

    ``<``, ``>``, ``&``, the apostrophe and the two line separators are written as ``\u`` escapes, which every
    JSON parser reads back as themselves.

    Raises:
        ValueError: If a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(ESCAPES)


def _title(kind: str, rate: float) -> str:
    name = KINDS.get(kind, kind)
    return name if kind == "none" else f"{name}, {percent(rate)} of tokens"


def _check(replay: Mapping[str, Any]) -> None:
    for place, frame in enumerate(replay["frames"]):
        for cell in frame["cells"]:
            if cell["state"] not in STATES:
                raise DataError(
                    f"results: replay of '{replay['arm']}', frame {place}: unknown cell state "
                    f"{cell['state']!r}; use one of {', '.join(STATES)}"
                )
