"""``slackdlm chat``: talk to a model."""

import argparse
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from rich.console import Console

from slackdlm.cli.commands import Commands
from slackdlm.cli.decoding import add_model

if TYPE_CHECKING:
    pass


def add_chat(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("chat", help="talk to a model and watch its canvas resolve")
    add_model(parser)
    parser.add_argument(
        "--canvas-length", type=int, default=128, help="positions (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, help="denoising steps (default: one per position)")
    parser.add_argument(
        "--block-length", type=int, help="positions per block (default: the canvas)"
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=_chat)


def _chat(arguments: argparse.Namespace) -> None:
    from slackdlm.chat import ChatSettings, Conversation, chat
    from slackdlm.models.loading import load_model
    from slackdlm.sampling.sampler import SamplerConfig

    settings = ChatSettings(
        SamplerConfig(
            canvas_length=arguments.canvas_length,
            steps=arguments.steps,
            block_length=arguments.block_length,
            temperature=arguments.temperature,
            seed=arguments.seed,
        )
    )
    loaded = load_model(arguments.model, adapter=arguments.adapter)
    console = Console()
    with suppress(ImportError):
        import_module("readline")  # lines can be edited and recalled
    chat(Conversation(loaded, settings), console, lambda: console.input("[bold]> [/bold]"))
