"""What every command that decodes takes: model, decoding, intervention."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from slackdlm.cli.flags import add_set, add_settings, add_shorthand
from slackdlm.errors import ConfigError
from slackdlm.sampling.config import InterventionConfig, SamplerConfig

if TYPE_CHECKING:
    from slackdlm.models.loaded import LoadedModel
    from slackdlm.models.record import TrainingRecord
    from slackdlm.sampling.recipe import DecodingRecipe

Block: TypeAlias = "dict[str, Any]"


QUESTIONS_HELP = (
    "question file: a path, hf://datasets/OWNER/NAME[@REVISION]/FILE, or arena-hard-v2.0, arena-hard-v0.1, mt-bench "
    "or alpaca-eval from the hub"
)
"""Of every flag that takes questions."""


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model, and where it decodes."""
    parser.add_argument("model", help="model folder or hub id")
    parser.add_argument("--adapter", help="LoRA adapter folder or hub id")
    add_device(parser)
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of the weights (default: as saved)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Where models decode."""
    parser.add_argument(
        "--device",
        help="cpu, cuda or cuda:1 (default: a GPU if there is one); at a temperature above 0 GPUs draw other noise",
    )


def load_chosen(arguments: argparse.Namespace) -> "LoadedModel":
    """The model that :func:`add_model` asks for. Errors as in ``load_model``."""
    from slackdlm.models.loading import load_model

    return load_model(
        arguments.model,
        adapter=arguments.adapter,
        dtype=arguments.dtype,
        device=chosen_device(arguments.device),
    )


def chosen_device(device: str | None) -> str | None:
    """The device asked for, else this process's GPU; None: there is none, so the CPU."""
    import torch

    if device is not None and device.startswith("meta"):
        raise ConfigError("--device: meta holds no weights to compute with; use cpu or cuda")
    if device is not None or not torch.cuda.is_available():
        return device
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


_DAILY = ("steps", "block_length", "temperature", "remasking", "bound", "seed", "batch_size")


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """How it decodes: a recipe, ``--set``, and flags for the settings that people type daily."""
    add = parser.add_argument_group("decoding").add_argument
    add(
        "--recipe",
        type=Path,
        metavar="YAML",
        help="decoding settings from a file such as recipes/decode-slack.yaml; flags override it",
    )
    add_set(add, "sampler.guidance=2, or intervention.when=early")
    help = "response tokens; the canvas has room for the slack the model was trained with too"
    add_shorthand(add, "--gen-length", "sampler.gen_length", help=help)
    help = "positions, slack and padding included"
    add_shorthand(add, "--canvas-length", "sampler.canvas_length", help=help)
    add_settings(add, "sampler", SamplerConfig, _DAILY)


def add_intervention(parser: argparse.ArgumentParser) -> None:
    """What displaces tokens while it decodes."""
    add = parser.add_argument_group("intervention").add_argument
    help = "displace tokens: shift, or a control: substitute, drop, swap"
    add_shorthand(add, "--intervention", "intervention.kind", help=help)
    add_settings(add, "intervention", InterventionConfig, ["rate"])


class Decoding(NamedTuple):
    """What flags and recipe come to."""

    recipe: "DecodingRecipe"
    canvas: str
    """Its canvas, and how that came from the length asked for."""


def decoding(
    arguments: argparse.Namespace,
    models: Sequence[tuple[str, str | None]],
    *,
    gen_length: int | None = None,
    overrides: list[str] | None = None,
) -> Decoding:
    """How to decode, from the recipe and what ``--set`` and its shorthands change.

    Args:
        arguments: The command's.
        models: Names and adapters. A ``gen_length`` gets room for the slack that they were trained with, the
            most of them if there are several, so that all decode on the same canvas.
        overrides: In place of all that ``--set`` was given.
        gen_length: Where neither flags nor recipe give a length, unless all models were trained on canvases of
            one length, which is then taken.

    Raises:
        ConfigError: If a setting is wrong or contradicts another.
        CheckpointError: If there is no such model.
    """
    from slackdlm.models.record import find_record
    from slackdlm.sampling.recipe import LENGTHS, build_recipe, read_blocks

    blocks = read_blocks(arguments.recipe, arguments.set if overrides is None else overrides)
    sampler = blocks.setdefault("sampler", {})
    if not isinstance(sampler, dict):  # which the recipe's checks refuse
        return Decoding(build_recipe(blocks, record=None, file=arguments.recipe), "")
    settings = cast("Block", sampler)
    is_open = all(settings.get(name) is None for name in LENGTHS)
    if is_open and gen_length is None:
        raise ConfigError(
            "no length: give --gen-length TOKENS, --canvas-length POSITIONS or a --recipe that has one"
        )
    if is_open or settings.get("gen_length") is not None:
        records = [find_record(model, adapter=adapter) for model, adapter in models]
    else:
        records = []
    if is_open:
        length = _fixed_canvas(records)
        settings |= {"gen_length": gen_length} if length is None else {"canvas_length": length}
    known = [record for record in records if record is not None]
    record = max(known, key=lambda record: record.slack_ratio[1], default=None)
    recipe = build_recipe(blocks, record=record, file=arguments.recipe)
    positions = recipe.sampler.canvas_length
    if is_open and settings.get("gen_length") is None:
        return Decoding(recipe, f"canvas: {positions} positions, as in training")
    return Decoding(recipe, _canvas(positions, settings.get("gen_length"), record))


def _fixed_canvas(records: "Sequence[TrainingRecord | None]") -> int | None:
    """Length of the canvases that all models were trained on, if it is one and fixed."""
    lengths = {r.canvas_length if r and r.padding == "fixed" else None for r in records}
    return lengths.pop() if len(lengths) == 1 else None


def _canvas(positions: int, gen_length: int | None, record: "TrainingRecord | None") -> str:
    if gen_length is None:
        return f"canvas: {positions} positions, as asked for"
    if record is None:
        return f"canvas: {positions} positions, none for slack: the model has no record of its training"
    ratio = record.slack_ratio[1]
    trained = f"with slack up to {ratio:g} of them" if ratio else "without slack"
    if record.padding == "fixed" and record.canvas_length != positions:
        length = record.canvas_length
        trained += f", on canvases of {length} positions alone (--canvas-length {length})"
    return f"canvas: {positions} positions for {gen_length} tokens: trained {trained}"
