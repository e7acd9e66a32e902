"""How is a decoding written down? A YAML file with the blocks of a sampler and of an intervention."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slackdlm.config import apply_overrides, asdict, build, read_mapping, settings
from slackdlm.errors import ConfigError
from slackdlm.models.record import TrainingRecord
from slackdlm.sampling.config import InterventionConfig, SamplerConfig
from slackdlm.sampling.intervention import ShiftIntervention

LENGTHS = ("gen_length", "canvas_length")
"""A recipe has one of them."""


@settings
class DecodingRecipe:
    """Everything that decides an output beside the model and the prompt."""

    sampler: SamplerConfig
    intervention: InterventionConfig | None = None

    @property
    def shift(self) -> ShiftIntervention | None:
        """The intervention, drawn with the sampler's seed; None without one."""
        if self.intervention is None:
            return None
        return ShiftIntervention(**asdict(self.intervention), seed=self.sampler.seed)


def read_blocks(file: Path | None, overrides: list[str]) -> dict[str, Any]:
    """The blocks of a file (None: none), overridden by ``sampler.steps=64`` and the like; not yet checked.

    Raises:
        ConfigError: If the file is missing or no YAML mapping, or an override is wrong.
    """
    blocks: dict[str, Any] = {}
    if file is not None:
        blocks = read_mapping(file, blocks="the blocks sampler and intervention")
    sampler = blocks.get("sampler")
    keys = {override.partition("=")[0].strip() for override in overrides}
    if isinstance(sampler, dict) and keys & {f"sampler.{name}" for name in LENGTHS}:
        for name in LENGTHS:  # one length takes the place of the other that the file may give
            sampler.pop(name, None)
    apply_overrides(blocks, overrides, DecodingRecipe)
    return blocks


def build_recipe(
    blocks: Mapping[str, Any], *, record: TrainingRecord | None, file: Path | None
) -> DecodingRecipe:
    """The checked recipe, ``sampler.gen_length`` turned into a canvas for this model.

    Args:
        blocks: ``sampler`` holds the fields of :class:`SamplerConfig`; in place of ``canvas_length`` it may
            hold ``gen_length``, response tokens without slack (LLaDA's name, whose canvas has none).
        record: How the model was trained. None: ``gen_length`` is the canvas, as without slack.
        file: Where they come from, for messages.

    Raises:
        ConfigError: On an unknown, missing or wrong key or value, or with both lengths.
    """
    sampler = blocks.get("sampler")
    try:
        if sampler is None or isinstance(sampler, Mapping):
            blocks = {**blocks, "sampler": _with_canvas(dict(sampler or {}), record)}
        return build(DecodingRecipe, blocks)
    except ConfigError as error:
        where = "" if file is None else f"{file}: "
        raise ConfigError(f"{where}{error}") from error


def _with_canvas(sampler: dict[str, Any], record: TrainingRecord | None) -> dict[str, Any]:
    given = [name for name in LENGTHS if sampler.get(name) is not None]
    if len(given) != 1:
        raise ConfigError(
            f"sampler: expected gen_length (response tokens) or canvas_length (slack included), got "
            f"{'both' if given else 'neither'}; give one"
        )
    gen_length = sampler.pop("gen_length", None)
    if gen_length is None:
        return sampler
    if type(gen_length) is not int or gen_length < 1:
        raise ConfigError(f"sampler.gen_length: expected a whole number above 0, got {gen_length}")
    sampler["canvas_length"] = gen_length if record is None else record.canvas_for(gen_length)
    return sampler
