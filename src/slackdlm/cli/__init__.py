"""The command line: one file per command, each loads what it is given and calls one function."""

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn, cast

from rich.console import Console
from rich.text import Text

from slackdlm.cli.chat import add_chat
from slackdlm.cli.compare import add_compare
from slackdlm.cli.demo import add_demo
from slackdlm.cli.flags import remedy
from slackdlm.cli.generate import add_answer, add_generate
from slackdlm.cli.harness import add_harness
from slackdlm.cli.judge import add_judge
from slackdlm.cli.launched import leave_it_to_the_first, this_rank
from slackdlm.cli.probe import add_probe
from slackdlm.cli.report import add_report
from slackdlm.cli.train import add_train
from slackdlm.errors import SlackDLMError
from slackdlm.terminal import printable

# torch and transformers take seconds to import: each command imports what it needs.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it did what was asked, 2 after an error of the user's, 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        # What a terminal's encoding lacks is shown escaped.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help()
        return 2
    arguments = parser.parse_args(argv)
    errors = Console(stderr=True)
    logging.basicConfig(level=logging.WARNING, handlers=[_Warnings()])
    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # on import it tells of kernels it lacks
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except SlackDLMError as error:
        _say(errors, str(error))
        return 2
    except BrokenPipeError:
        # Whoever read the output has seen enough, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a full disk, a folder that may not be written, a file taken away
        where = f"{error.filename}: " if error.filename else ""
        _say(errors, f"{where}{error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        if this_rank().speaks:
            errors.print(f"interrupted{getattr(arguments, 'interrupted', '')}", soft_wrap=True)
        return 130
    except Exception:
        leave_it_to_the_first()
        raise
    return 0


def _say(console: Console, message: str) -> None:
    leave_it_to_the_first()
    rank = this_rank()
    where = (
        "" if rank.speaks else f"process {rank.number} of {rank.num_processes} (the first is 0): "
    )
    console.print(Text("error: ", style="bold red") + printable(where + message), soft_wrap=True)


class _Warnings(logging.Handler):
    """Each on a line of its own on standard error, as wide as it is."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        levels = (
            (logging.WARNING, ""),
            (logging.ERROR, "warning: "),
            (logging.CRITICAL, "error: "),
        )
        level = next((name for above, name in levels if record.levelno < above), "error: ")
        text = Text(level, style="bold yellow") + printable(record.getMessage())
        Console(stderr=True).print(text, soft_wrap=True)


class _Parser(argparse.ArgumentParser):
    """Without abbreviations: a misspelt flag is none that happens to begin like it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Print and exit."""
        leave_it_to_the_first()
        super().error(message)

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """As the library's; a flag that there is none of is answered with what to write instead."""
        arguments, unknown = self.parse_known_args(*args, **kwargs)
        if unknown:
            flags = [word for word in unknown if word.startswith("--")]
            advice = f"; {remedy(flags[0], _flags_of(self, arguments))}" if flags else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{advice}")
        return arguments


def _flags_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[str]:
    """Of the command that was given."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))  # pyright: ignore[reportPrivateUsage]
    return list(commands.choices[arguments.command]._option_string_actions)  # pyright: ignore[reportPrivateUsage]


class _Version(argparse.Action):
    """Looked up when asked for: a source tree on the path has none, and its commands run all the same."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print and exit."""
        try:
            print(f"slackdlm {version('slackdlm')}")  # noqa: T201
        except PackageNotFoundError:
            parser.exit(2, "error: slackdlm is on the path but not installed; pip install -e .\n")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    new = _Parser(
        prog="slackdlm",
        description="Fine-tune, decode, probe and evaluate masked diffusion language models "
        "with alignment-flexible supervision.",
    )
    parser = cast("argparse.ArgumentParser", new)  # of this type the commands know it
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and stop")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", dest="command"
    )
    add_demo(commands)
    add_train(commands)
    add_generate(commands)
    add_answer(commands)
    add_judge(commands)
    add_chat(commands)
    add_compare(commands)
    add_probe(commands)
    add_harness(commands)
    add_report(commands)
    return parser
