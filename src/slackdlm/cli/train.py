"""``slackdlm train``: train what a recipe says, or show and plan it."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from slackdlm.cli.checks import check_model, check_output_folder, refuse_beside
from slackdlm.cli.flags import Commands
from slackdlm.errors import ConfigError, counted
from slackdlm.terminal import printable, table

if TYPE_CHECKING:
    from slackdlm.training.config import Recipe


def add_train(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("train", help="train what a recipe says")
    parser.add_argument("recipe", type=Path, help="YAML file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override, e.g. data.train=x",
    )
    parser.add_argument("--output", type=Path, help="run folder (default: runs/<recipe name>)")
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--show",
        type=int,
        metavar="N",
        help="print the first N samples as the model sees them, and stop",
    )
    parser.add_argument(
        "--plan", action="store_true", help="print what the run needs in memory, and stop"
    )
    parser.add_argument("--memory", type=float, metavar="GB", help="--plan: what each GPU has")
    parser.add_argument("--processes", type=int, help="--plan: number of GPUs (default: 1)")
    parser.add_argument(
        "--sharded", action="store_true", help="--plan: weights divided over them (FSDP2, ZeRO-3)"
    )
    parser.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> None:
    from slackdlm.training.config import load_recipe
    from slackdlm.training.rows import check_there

    _check_flags(arguments)
    recipe = load_recipe(arguments.recipe, arguments.set)
    check_model(recipe.model.path, recipe.model.adapter)
    for data in (recipe.data.train, recipe.data.eval):
        if data is not None and not arguments.plan:
            check_there(data)
    output = arguments.output or Path("runs") / recipe.name
    if not arguments.plan and arguments.show is None:
        check_output_folder("--output", output)
    logging.getLogger("slackdlm.training").setLevel(logging.INFO)  # says what the rows were read as
    from slackdlm.training.processes import this_process
    from slackdlm.training.run import NUM_FINAL_STEPS, train

    if arguments.plan:
        _print_plan(recipe, arguments)
        return
    if arguments.show is not None:
        _print_samples(recipe, arguments.show)
        return
    arguments.interrupted = "; the same command with --resume goes on from the last checkpoint"
    result = train(recipe, output=output, resume=arguments.resume, progress=not arguments.quiet)
    if not this_process().is_main_process:
        return
    last = "" if result.steps <= NUM_FINAL_STEPS else f", last {NUM_FINAL_STEPS} steps"
    figures = (
        (f"mean training loss{last} (nats per position)", result.train_loss),
        ("evaluation CE bound (nats per response token)", result.eval_ce),
        ("evaluation of the objective (nats per response token)", result.eval_objective),
        ("seconds, start and evaluation included", result.seconds),
        ("canvas positions per second of these", result.tokens_per_second),
    )
    rows = [[name, "–" if value is None else f"{value:.4g}"] for name, value in figures]
    title, console = f"{recipe.name}: {counted(result.steps, 'step')}", Console()
    headings = ("measured", "value")
    console.print(table(title, headings, rows, words=headings[:1], width=console.width))
    console.print(Text(f"model: {result.output / 'model'}"))


def _check_flags(arguments: argparse.Namespace) -> None:
    """Refuse flags that would be ignored."""
    if arguments.plan and arguments.show is not None:
        raise ConfigError("--plan, --show: each prints something and stops; give one of them")
    if not arguments.plan:
        refuse_beside(
            "without --plan",
            ("--memory", arguments.memory),
            ("--processes", arguments.processes),
            ("--sharded", arguments.sharded),
        )
    if arguments.plan or arguments.show is not None:
        refuse_beside(
            "beside --plan" if arguments.plan else "beside --show",
            ("--output", arguments.output),
            ("--resume", arguments.resume),
            ("--quiet", arguments.quiet),
        )


_STYLES = {
    "prompt": "dim",
    "visible": "green",
    "masked": "black on yellow",
    "slack": "bold magenta",
    "padding": "blue",
    "target": "cyan",
}


def _print_samples(recipe: "Recipe", count: int) -> None:
    from slackdlm.training.preview import Piece, preview_recipe

    if count < 1:
        raise ConfigError(f"--show: expected at least 1, got {count}")

    def line(name: str, pieces: Sequence[Piece]) -> Text:
        parts = (printable(piece.text).plain for piece in pieces)
        styled = [(part, _STYLES[p.kind]) for part, p in zip(parts, pieces, strict=True)]
        return Text.assemble((f"{name:>8} ", "bold"), *styled)

    previews = preview_recipe(recipe, count=count)
    console = Console()
    legend = [(f" {kind} ", style) for kind, style in _STYLES.items()]
    console.print(Text.assemble(("  legend ", "bold"), *legend))
    console.print(printable(f"    chat {previews[0].chat_format}" if previews else ""))
    for preview in previews:
        console.print()
        console.print(printable(preview.title), style="bold")
        console.print(line("sees", preview.seen), soft_wrap=True)
        console.print(line("canvas", preview.hidden), soft_wrap=True)
        console.print(line("target", [Piece(preview.target, "target")]), soft_wrap=True)


def _print_plan(recipe: "Recipe", arguments: argparse.Namespace) -> None:
    from slackdlm.training.plan import largest_micro_batch, plan_memory

    processes = 1 if arguments.processes is None else int(arguments.processes)
    if processes < 1:
        raise ConfigError(f"--processes: expected at least 1, got {processes}")
    if arguments.memory is not None and not 0 < arguments.memory < float("inf"):
        raise ConfigError(f"--memory: expected gigabytes above 0, got {arguments.memory}")
    sharded: bool = arguments.sharded
    plan = plan_memory(recipe, num_processes=processes, sharded=sharded)
    title = (
        f"{recipe.name}: {counted(plan.num_parameters, 'parameter')}, {plan.num_trainable:,} trained;"
        f" {counted(processes, 'process')} x {counted(plan.micro_batch_size, 'sample')} x"
        f" {counted(plan.num_positions, 'position')}"
    )
    out = ("largest layer out of 4 bits, for a moment", plan.dequantised)
    parts = (
        ("weights", plan.weights),
        ("gradients", plan.gradients),
        ("optimizer", plan.optimizer),
        ("optimizer's step, for a moment", plan.update),
        ("activations", plan.activations),
        ("loss buffers", plan.loss_buffers),
        *([out] if plan.dequantised else []),
        ("peak: not all of these at the same time", plan.peak),
    )
    rows = [[name, f"{value / 1e9:.3f}"] for name, value in parts]
    console, headings = Console(), ("per process", "GB")
    console.print(table(title, headings, rows, words=headings[:1], width=console.width))
    console.print(Text(_assumed(recipe)))
    if arguments.memory is None:
        return
    size = largest_micro_batch(
        recipe, memory=arguments.memory * 1e9, num_processes=processes, sharded=sharded
    )
    if size is None:
        console.print(
            Text(
                f"not even one sample fits into {arguments.memory:g} GB; try --processes with"
                " --sharded, training.gradient_checkpointing, model.lora or a shorter canvas"
            )
        )
        return
    share = recipe.training.batch_size // processes
    limit = ", a process's whole share of training.batch_size" if size == share else ""
    console.print(
        Text(
            f"largest training.micro_batch_size in {arguments.memory:g} GB: {size}{limit}",
            style="bold",
        )
    )


def _assumed(recipe: "Recipe") -> str:
    """What a plan takes for granted, since it reads no data: the most that the recipe allows."""
    import torch

    data, shape = recipe.data, recipe.model.from_scratch
    slack = recipe.objective.slack_ratio[1]
    device = "a GPU" if torch.cuda.is_available() else "a CPU, since no GPU is seen here"
    parts = [
        f"prompts of {counted(data.max_prompt_length, 'token')}",
        f"canvases of {counted(data.canvas_length, 'position')}",
        *([f"slack of {slack:g} times the response"] if slack else []),
        *([f"a vocabulary of {counted(shape.vocab_size, 'token')}"] if shape else []),
    ]
    return (
        f"assumed, since the data is not read: the most that the recipe allows, {', '.join(parts)},"
        f" every position masked; on {device}"
    )
