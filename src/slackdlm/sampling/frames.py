"""What did the canvas look like after each step? Frames of a traced decoding, for replays."""

from typing import Any

from slackdlm.errors import ConfigError
from slackdlm.models.loaded import LoadedModel
from slackdlm.sampling.decoding import Commit, Generation


def frames(loaded: LoadedModel, generation: Generation) -> list[dict[str, Any]]:
    """The canvas before the first step and after each step.

    Args:
        loaded: The model; spells the tokens.
        generation: Decoded with ``SamplerConfig(trace=True)``.

    Returns:
        Frames ``{"step", "cells"}``; a cell is ``{"token", "state", "new"}`` with the state ``masked``, ``token``,
        ``slack``, ``end``, ``displaced`` or ``substituted``.

    Raises:
        ConfigError: If the generation was not traced.
    """
    if generation.steps is None:
        raise ConfigError("frames: the decoding was not traced; set SamplerConfig(trace=True)")
    cells = [{"token": "", "state": "masked", "new": False} for _ in generation.canvas]
    shown = [{"step": 0, "cells": cells}]
    for step, commits in enumerate(generation.steps, start=1):
        cells = [cell | {"new": False} for cell in cells]
        for commit in commits:
            cells[commit.position] = _cell(loaded, commit)
        shown.append({"step": step, "cells": cells})
    return shown


def _cell(loaded: LoadedModel, commit: Commit) -> dict[str, Any]:
    state = "token"
    if commit.altered:
        state = "displaced" if commit.displacement else "substituted"
    elif commit.token == loaded.slack_id:
        state = "slack"
    elif commit.token in loaded.eos_ids:
        state = "end"
    return {
        "token": str(loaded.tokenizer.decode([commit.token])),
        "state": state,
        "new": True,
    }
