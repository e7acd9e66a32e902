"""Flags made from settings, so that each is defined once: ``--steps 8`` is ``--set sampler.steps=8``."""

import argparse
import difflib
from collections.abc import Iterable
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeAlias

from slackdlm.config import choices_of, help_of

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # pyright: ignore[reportPrivateUsage]
"""What every command adds its parser to."""


def add_settings(
    add: Any, block: str, cls: type[Any], names: Iterable[str], *, prefix: str = ""
) -> None:
    """Add a flag for each of some fields of a block of settings; its type, bounds and help are the field's.

    Args:
        add: ``add_argument`` of a parser or a group.
        block: Name of the block, as in ``--set BLOCK.KEY=VALUE``.
        cls: The block, a class under :func:`slackdlm.config.settings`.
        names: The fields that people type daily; all others are reached by ``--set``.
        prefix: Before the flag's name.
    """
    helps = help_of(cls)
    types = {each.name: each for each in fields(cls)}
    for name in names:
        add_shorthand(
            add,
            f"--{prefix}{name.replace('_', '-')}",
            f"{block}.{name}",
            help=_with_default(
                helps.get(name, ""), types[name].default, choices_of(types[name].type)
            ),
        )


def add_shorthand(add: Any, flag: str, key: str, *, help: str) -> None:
    """A flag that is ``--set KEY=VALUE``."""
    add(
        flag,
        dest="set",
        action="append",
        type=lambda value: f"{key}={value}",
        metavar=key.rpartition(".")[2].upper(),
        help=help.replace("%", "%%"),
    )


def add_set(add: Any, example: str) -> None:
    """``--set``, which every shorthand adds to."""
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"override a setting, e.g. {example}",
    )


def _with_default(text: str, default: Any, choices: tuple[str, ...]) -> str:
    """The first sentence of a field's help, its choices and its default."""
    sentence = text.replace("``", "").partition(". ")[0].rstrip(".;:")
    sentence = sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() else sentence
    chosen = f"; one of {', '.join(choices)}" if choices else ""
    shown = "" if default is MISSING or default is None else f" (default: {default})"
    return f"{sentence}{chosen}{shown}"


@cache
def _keys() -> dict[str, str]:
    """``--set`` keys by the name that a flag of theirs would have."""
    from slackdlm.judging.config import JudgeConfig
    from slackdlm.sampling.config import InterventionConfig, SamplerConfig

    blocks = {"judge": JudgeConfig, "intervention": InterventionConfig, "sampler": SamplerConfig}
    names = {
        field.name.replace("_", "-"): f"{block}.{field.name}"
        for block, cls in blocks.items()
        for field in fields(cls)
    }
    return names | {f"no-{name}": key for name, key in names.items()}


def remedy(word: str, known: Iterable[str]) -> str:
    """What to write in place of a flag that no command has."""
    name = word.partition("=")[0].removeprefix("--")
    close = difflib.get_close_matches(f"--{name}", list(known), n=1, cutoff=0.75)
    key = _keys().get(name) or _keys().get(name.removeprefix("judge-"))
    if key is not None and "--set" in known:
        return f"it is a setting: --set {key}=VALUE"
    return f"did you mean {close[0]}?" if close else "--help lists what there is"
