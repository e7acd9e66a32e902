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


def check_known(keys: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise if a configuration holds a key that may change the result and is not known.

    Args:
        keys: Keys and values beside those the configuration class has fields for.
        known: Names that are dealt with. Those every transformers model has are known anyway, and
            what starts with an underscore or is None or False asks for nothing.

    Raises:
        ConfigError: Naming the first such key.
    """
    for key, value in keys.items():
        if (
            key in _GENERAL
            or key in known
            or key.startswith("_")
            or value is None
            or value is False
        ):
            continue
        raise ConfigError(
            f"config.json: the key {one_line(key)} = {one_line(repr(value))} is not known and may change the result; "
            "use a checkpoint of a published architecture, or remove the key if it has no effect"
        )


def check_numbers(
    given: Mapping[str, Any], bounds: Mapping[str, tuple[type, float, float]]
) -> None:
    """Raise if a key is no number of its type and range; None and missing keys are left to their defaults.

    Args:
        given: Keys and values of a configuration.
        bounds: Type (``int`` or ``float``), lowest and highest value of each key.

    Raises:
        ConfigError: Naming the first such key.
    """
    for key, (kind, lowest, highest) in bounds.items():
        value = given.get(key)
        if value is None:
            continue
        fits = isinstance(value, int if kind is int else int | float) and not isinstance(
            value, bool
        )
        if not (fits and lowest <= value <= highest):
            what = "a whole number" if kind is int else "a number"
            raise ConfigError(
                f"config.json: {key}: expected {what} from {lowest:g} to {highest:g}, "
                f"got {one_line(repr(value))}; use the config.json that belongs to these weights"
            )


def check_implemented(
    given: Mapping[str, Any], implemented: Mapping[str, tuple[Any, ...]], *, architecture: str
) -> None:
    """Raise if a key has a value whose variant is not implemented.

    Args:
        given: Keys and values of a configuration; a missing key stands for the first value.
        implemented: The values each key may have.
        architecture: What is implemented, for the message.

    Raises:
        ConfigError: Naming the first such key.
    """
    for key, values in implemented.items():
        value = given.get(key, values[0])
        if value not in values:
            expected = " or ".join(repr(known) for known in values)
            raise ConfigError(
                f"config.json: {key} = {one_line(repr(value))} is not implemented, expected {expected}; "
                f"use a checkpoint of the {architecture} architecture"
            )
