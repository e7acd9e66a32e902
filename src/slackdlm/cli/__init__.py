"""The command line: one file per command, each loads what it is given and calls one function."""

import argparse
import logging
import os
from collections.abc import Sequence

from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from slackdlm.cli.bench import add_bench
from slackdlm.cli.chat import add_chat
from slackdlm.cli.compare import add_compare
from slackdlm.cli.demo import add_demo
from slackdlm.cli.generate import add_answer, add_generate
from slackdlm.cli.harness import add_harness
from slackdlm.cli.judge import add_judge
from slackdlm.cli.probe import add_probe
from slackdlm.cli.report import add_report
from slackdlm.cli.surface_form import add_surface_form
from slackdlm.cli.train import add_train
from slackdlm.errors import SlackDLMError

# torch and transformers take seconds to import: each command imports what it needs.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it did what was asked, 2 after an error of the user's, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    errors = Console(stderr=True)
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=errors)]
    )
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        arguments.run(arguments)
    except SlackDLMError as error:
        errors.print(Text("error: ", style="bold red") + Text(str(error)))
        return 2
    except KeyboardInterrupt:
        errors.print("interrupted")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slackdlm",
        description="Fine-tune, decode, probe and evaluate masked diffusion language models "
        "with alignment-flexible supervision.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_demo(commands)
    add_train(commands)
    add_generate(commands)
    add_answer(commands)
    add_judge(commands)
    add_chat(commands)
    add_compare(commands)
    add_probe(commands)
    add_harness(commands)
    add_surface_form(commands)
    add_report(commands)
    add_bench(commands)
    return parser
