"""What every command that decodes takes: model, decoding, intervention."""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from slackdlm.errors import ConfigError

if TYPE_CHECKING:
    from slackdlm.models.loaded import LoadedModel
    from slackdlm.models.record import TrainingRecord
    from slackdlm.sampling.recipe import DecodingRecipe

Block: TypeAlias = "dict[str, Any]"
_LENGTHS = ("gen_length", "canvas_length")
_INTERVENTION = {"intervention": "kind", "rate": "rate", "direction": "direction", "when": "when"}
"""Flag -> key of the recipe's block."""


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


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """How it decodes. A flag left out is None: the recipe decides, or the default of SamplerConfig."""
    group = parser.add_argument_group("decoding")
    add = group.add_argument
    add(
        "--recipe",
        type=Path,
        metavar="YAML",
        help="decoding settings from a file such as recipes/decode-slack.yaml; flags override it",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override the recipe, e.g. sampler.steps=64",
    )
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "--gen-length",
        type=int,
        help="response tokens; the canvas has room for the slack the model was trained with too",
    )
    length.add_argument("--canvas-length", type=int, help="positions, slack and padding included")
    _add_order(add)
    add("--temperature", type=float, help="0 is greedy (default)")
    add("--guidance", type=float, help="classifier-free guidance (default: none)")
    add(
        "--cache",
        choices=["none", "prefix", "dual"],
        help="keep keys and values within a block; changes answers (default: none)",
    )
    add("--seed", type=int, help="of the noise (default: 0)")
    add("--batch-size", type=int, help="prompts decoded together (default: 32); changes no answer")


def _add_order(add: Callable[..., object]) -> None:
    """Which cells are decoded when; ``add`` is a group's ``add_argument``."""
    add("--steps", type=int, help="denoising steps (default: one per position, or by --bound)")
    add("--block-length", type=int, help="positions per block (default: the whole canvas)")
    add(
        "--remasking",
        choices=["low_confidence", "random", "entropy", "margin", "threshold", "entropy_bound"],
        help="which cells are decoded next (default: low_confidence)",
    )
    add("--bound", type=float, help="confidence of threshold, or nats of entropy_bound")
    for flag, what in (
        ("--forbid-end-of-text", "never propose the end of text"),
        ("--delay-end", "decode cells that propose an end last"),
        ("--delay-slack", "decode cells that propose <slack> last"),
        (
            "--early-stop",
            "no more passes once the text is settled; does not change it, unless with --refill",
        ),
    ):
        add(flag, action=argparse.BooleanOptionalAction, help=what)
    add(
        "--spacing",
        type=int,
        help="decode cells of one step at least this far apart while there are enough (default: 1, anywhere)",
    )
    add("--refill", type=int, help="further steps for the least certain slack (default: 0)")


def add_intervention(parser: argparse.ArgumentParser) -> None:
    """What disturbs the decoding."""
    group = parser.add_argument_group("intervention")
    group.add_argument(
        "--intervention",
        choices=["shift", "substitute", "drop", "swap"],
        help="disturb the decoding",
    )
    group.add_argument(
        "--direction", choices=["left", "right", "both"], help="of shift and swap (default: both)"
    )
    group.add_argument(
        "--when", choices=["always", "early", "late"], help="phase it acts in (default: always)"
    )
    group.add_argument(
        "--rate", type=float, help="share of content tokens the intervention touches"
    )


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
) -> Decoding:
    """How to decode, from the recipe and the flags of :func:`add_decoding` and :func:`add_intervention`.

    Args:
        arguments: The command's.
        models: Names and adapters. A ``gen_length`` gets room for the slack that they were trained with, the
            most of them if there are several, so that all decode on the same canvas.
        gen_length: Where neither flags nor recipe give a length, unless all models were trained on canvases of
            one length, which is then taken.

    Raises:
        ConfigError: If a setting is wrong or contradicts another.
        CheckpointError: If there is no such model.
    """
    from slackdlm.models.record import find_record
    from slackdlm.sampling.recipe import build_recipe

    blocks = _blocks(arguments)
    sampler = blocks["sampler"]
    if not isinstance(sampler, dict):  # which the recipe's checks refuse
        return Decoding(build_recipe(blocks, record=None, file=arguments.recipe), "")
    settings = cast("Block", sampler)
    is_open = all(settings.get(name) is None for name in _LENGTHS)
    if is_open and gen_length is None:
        raise ConfigError(
            "no length: give --gen-length TOKENS, --canvas-length POSITIONS or a --recipe that has one"
        )
    if is_open or settings.get("gen_length") is not None:
        found = [find_record(model, adapter=adapter) for model, adapter in models]
    else:
        found = []
    if is_open:
        length = _fixed_canvas(found)
        settings |= {"gen_length": gen_length} if length is None else {"canvas_length": length}
    records = [one for one in found if one is not None]
    record = max(records, key=lambda record: record.slack_ratio[1], default=None)
    recipe = build_recipe(blocks, record=record, file=arguments.recipe)
    positions = recipe.sampler.canvas_length
    if is_open and settings.get("gen_length") is None:
        return Decoding(recipe, f"canvas: {positions} positions, as in training")
    return Decoding(recipe, _canvas(positions, settings.get("gen_length"), record))


def _fixed_canvas(records: "Sequence[TrainingRecord | None]") -> int | None:
    """Length of the canvases that all models were trained on, if it is one and fixed."""
    lengths = {one.canvas_length if one and one.padding == "fixed" else None for one in records}
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


def _blocks(arguments: argparse.Namespace) -> Block:
    """The recipe's blocks with the flags written over them."""
    from slackdlm.sampling.config import SamplerConfig
    from slackdlm.sampling.recipe import read_blocks

    blocks: Block = read_blocks(arguments.recipe, arguments.set)
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    names = ["gen_length", *(field.name for field in fields(SamplerConfig))]
    flags = {name: given[name] for name in names if name in given}
    if not flags.keys().isdisjoint(_LENGTHS):
        flags = dict.fromkeys(_LENGTHS) | flags  # one length takes the place of the other
    blocks["sampler"] = _over(blocks.get("sampler"), flags)
    asked = {key: given[flag] for flag, key in _INTERVENTION.items() if flag in given}
    if asked:
        block = blocks["intervention"] = _over(blocks.get("intervention"), asked)
        if isinstance(block, dict) and not {"kind", "rate"} <= block.keys():
            raise ConfigError("--intervention and --rate: give both or neither")
    return blocks


def _over(block: object, flags: Block) -> object:
    """Flags written over a block; what is no block is left for the recipe's checks."""
    if block is None:
        return dict(flags)
    return {**cast("Block", block), **flags} if isinstance(block, dict) else block
