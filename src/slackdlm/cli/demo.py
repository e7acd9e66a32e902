"""``slackdlm demo``: the paper in miniature."""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.text import Text

from slackdlm.cli.checks import check_output_folder
from slackdlm.cli.flags import Commands
from slackdlm.errors import ConfigError


def add_demo(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("demo", help="the paper in miniature on a CPU, with a report")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/demo"), help="folder (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds", type=int, default=1, help="training seeds of every arm (default: 1)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="the whole path in minutes; figures mean nothing"
    )
    parser.add_argument(
        "--variants", action="store_true", help="also variants of slack-CTC, to OUTPUT/variants"
    )
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> None:
    from slackdlm.study.demo import run_demo
    from slackdlm.study.demo_plan import QUICK, DemoPlan

    if arguments.seeds < 1:
        raise ConfigError(f"--seeds: expected at least 1, got {arguments.seeds}")
    check_output_folder("--output", arguments.output)
    console = Console()
    plan = QUICK if arguments.quick else DemoPlan()
    report = run_demo(
        plan,
        output=arguments.output,
        num_seeds=arguments.seeds,
        with_variants=arguments.variants,
        quick=arguments.quick,
        console=console,
    )
    results = json.loads(report.with_name("results.json").read_text(encoding="utf-8"))
    # What a quick run finds means nothing: it stands in the report alone.
    summary = [] if arguments.quick else results["summary"]
    for sentence in [*results["warnings"], *summary]:
        console.print(Text(f"• {sentence}"))
    console.print(Text(f"report: {report.resolve()}", style="bold"))
