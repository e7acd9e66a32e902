"""The decoding replay: frames of canvases, packed for the page's player and drawn once without it.

Everything a model wrote travels as JSON inside a script element of a type that browsers do not run, and the
player puts it on the page as text, never as markup.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, get_args

from slackdlm.report.text import percent
from slackdlm.study.result import INTERVENTIONS, Cell, Replay

STATES: Final[tuple[str, ...]] = get_args(Cell.model_fields["state"].annotation)
TEXTS: Final = {"masked": "", "slack": "slack", "end": "end"}
"""What a cell of these states reads as, whatever its token is called."""
ESCAPES: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&'\u2028\u2029"}


class Scene(NamedTuple):
    """All arms decoding one prompt under one intervention, to be watched side by side."""

    title: str
    prompt: str
    tracks: tuple[tuple[str, Replay], ...]
    """Label and decoding of each arm."""


def scenes(replays: Sequence[Replay], labels: Mapping[str, str]) -> list[Scene]:
    """Replays grouped by prompt and intervention, in their order; those without frames are left out."""
    grouped: dict[tuple[str, str, float], list[tuple[str, Replay]]] = {}
    for replay in replays:
        if replay.frames:
            key = (replay.prompt, replay.kind, replay.rate)
            grouped.setdefault(key, []).append((labels[replay.arm], replay))
    return [
        Scene(title=_title(kind, rate), prompt=prompt, tracks=tuple(tracks))
        for (prompt, kind, rate), tracks in grouped.items()
    ]


def packed(scenes: Sequence[Scene]) -> list[dict[str, Any]]:
    """The scenes as small JSON: a cell is ``[text, index of its state, 1 if new]``."""
    return [
        {
            "title": scene.title,
            "prompt": scene.prompt,
            "tracks": [
                {
                    "label": label,
                    "text": replay.text,
                    "frames": [
                        {
                            "step": frame.step,
                            "cells": [
                                [cell_text(cell), STATES.index(cell.state), int(cell.new)]
                                for cell in frame.cells
                            ],
                        }
                        for frame in replay.frames
                    ],
                }
                for label, replay in scene.tracks
            ],
        }
        for scene in scenes
    ]


def cell_text(cell: Cell) -> str:
    """What a cell reads as: its token, or the name of its state where the token is no word."""
    return TEXTS.get(cell.state, cell.token)


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
    name = INTERVENTIONS.get(kind, kind)
    return name if kind == "none" else f"{name}, {percent(rate)} of tokens"
