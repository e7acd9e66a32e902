"""Does a ``config.json`` ask for something nobody here knows? Then it is refused, not ignored."""

from collections.abc import Collection, Mapping
from typing import Any

from transformers import PreTrainedConfig

from slackdlm.errors import ConfigError, one_line

# Written by transformers itself, some by older versions; none changes a number here.
_GENERAL = {
    *PreTrainedConfig().to_dict(),
    *("auto_map", "torch_dtype", "attn_implementation", "name_or_path"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"),
}

SIZE = (int, 1, 2**31)
"""Bounds of a width or a length."""
LAYERS = (int, 1, 2**12)
"""Bounds of a number of blocks: each costs time before the weights are looked at."""
POSITIVE = (float, 1e-30, 1e30)
"""Bounds of a real number above 0."""


def check_config(
    config: PreTrainedConfig,
    kwargs: dict[str, Any],
    *,
    implemented: Mapping[str, tuple[Any, ...]],
    without_effect: Collection[str],
    numbers: Mapping[str, tuple[type, float, float]],
    architecture: str,
) -> None:
    """Raise if a configuration asks for what nobody here knows; keys of ours and of remote code are dropped.

    Args:
        config: Holds the keys it has fields for.
        kwargs: The other keys. Those every transformers model has are known anyway, and what starts with an
            underscore or is None or False asks for nothing.
        implemented: The values a key may have; a missing key stands for the first.
        without_effect: Other names that are dealt with.
        numbers: Type (``int`` or ``float``), lowest and highest value of a key; None is left to its default.
        architecture: What is implemented, for the message.

    Raises:
        ConfigError: Naming the first wrong key.
    """
    given = vars(config) | kwargs
    for key, values in implemented.items():
        if given.get(key, values[0]) not in values:
            expected = " or ".join(repr(known) for known in values)
            raise ConfigError(
                f"config.json: {key} = {one_line(repr(given[key]))} is not implemented, expected {expected}; "
                f"use a checkpoint of the {architecture} architecture"
            )
    known = {*_GENERAL, *implemented, *without_effect}
    for key, value in kwargs.items():
        if not (key in known or key.startswith("_") or value is None or value is False):
            raise ConfigError(
                f"config.json: the key {one_line(key)} = {one_line(repr(value))} is not known and may change the "
                "result; use a checkpoint of a published architecture, or remove the key if it has no effect"
            )
    for key, (kind, lowest, highest) in numbers.items():
        value = given.get(key)
        accepted = int if kind is int else int | float
        fits = isinstance(value, accepted) and not isinstance(value, bool)
        if value is not None and not (fits and lowest <= value <= highest):
            what = "a whole number" if kind is int else "a number"
            raise ConfigError(
                f"config.json: {key}: expected {what} from {lowest:g} to {highest:g}, "
                f"got {one_line(repr(value))}; use the config.json that belongs to these weights"
            )
    for key in ("auto_map", "rope_scaling"):
        kwargs.pop(key, None)
