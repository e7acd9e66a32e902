"""``slackdlm report``: draw a demo's report again."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.text import Text

from slackdlm.cli.checks import check_output_folder
from slackdlm.cli.flags import Commands
from slackdlm.errors import DataError


def add_report(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report", help="draw a demo's plots and HTML again from its results.json"
    )
    parser.add_argument("results", type=Path, help="results.json")
    parser.add_argument("--output", type=Path, help="folder (default: beside the file)")
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from slackdlm.report.page import write_report
    from slackdlm.report.results import load_results

    results = load_results(arguments.results)
    folder = arguments.output or arguments.results.parent
    check_output_folder("--output", folder)
    try:
        report = write_report(results, folder)
    except DataError as error:
        raise DataError(f"{arguments.results}: {error}") from error
    Console().print(Text(f"report: {report}"))
