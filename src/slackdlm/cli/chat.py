"""``slackdlm chat``: talk to a model."""

import argparse
from contextlib import suppress
from importlib import import_module

from rich.console import Console
from rich.text import Text

from slackdlm.cli.checks import check_model, check_recipe
from slackdlm.cli.decoding import add_decoding, add_intervention, add_model, decoding, load_chosen
from slackdlm.cli.flags import Commands

GEN_LENGTH = 128


def add_chat(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "chat",
        help="talk to a model and watch its canvas resolve",
        description="Without a length, answers have the canvas of the model's training if that is fixed, else room "
        f"for {GEN_LENGTH} tokens.",
    )
    add_model(parser)
    add_decoding(parser)
    add_intervention(parser)
    parser.set_defaults(run=_chat)


def _chat(arguments: argparse.Namespace) -> None:
    check_model(arguments.model, arguments.adapter)
    check_recipe(arguments.recipe)
    from slackdlm.chat import Conversation, chat

    models = [(arguments.model, arguments.adapter)]
    recipe, canvas = decoding(arguments, models, gen_length=GEN_LENGTH)
    loaded = load_chosen(arguments)
    console = Console()
    console.print(Text(canvas, style="dim"))
    with suppress(ImportError):
        import_module("readline")  # lines can be edited and recalled
    chat(Conversation(loaded, recipe), console, lambda: console.input("[bold]> [/bold]"))
