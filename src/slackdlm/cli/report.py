"""``slackdlm report``: draw the report of a demo or a probe again."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.text import Text

from slackdlm.cli.checks import check_output_folder
from slackdlm.cli.flags import Commands


def add_report(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report", help="draw the report of a demo or a probe again from its results.json"
    )
    parser.add_argument("results", type=Path, help="results.json, or its folder")
    parser.add_argument("--output", type=Path, help="folder (default: beside the file)")
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from slackdlm.report.page import write_report
    from slackdlm.study.result import read_result

    result = read_result(arguments.results)
    file: Path = arguments.results
    folder = arguments.output or (file if file.is_dir() else file.parent)
    check_output_folder("--output", folder)
    Console().print(Text(f"report: {write_report(result, folder)}"))
