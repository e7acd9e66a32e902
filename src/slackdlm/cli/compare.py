"""``slackdlm compare``: compare systems."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from slackdlm.cli.commands import Commands
from slackdlm.cli.outputs import check_output_folder
from slackdlm.errors import ConfigError, DataError
from slackdlm.terminal import printable

if TYPE_CHECKING:
    from slackdlm.evaluation.comparison import Comparison
    from slackdlm.evaluation.statistics.length_control import Gamed


def add_compare(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare", help="judgments of two or more systems -> intervals, tests and a report"
    )
    parser.add_argument("judgments", type=Path, nargs="*", help="our files or those of a benchmark")
    parser.add_argument(
        "--output", type=Path, help="folder for comparison.html, .md, .tex and .json"
    )
    parser.add_argument(
        "--answers", type=Path, nargs="+", default=[], help="for length bias and style control"
    )
    parser.add_argument(
        "--style-control",
        nargs="*",
        metavar="COVARIATE",
        help="length, headers, lists, bold; without a name: all. Give judgment files before it",
    )
    parser.add_argument(
        "--criteria",
        type=Path,
        metavar="FOLDER",
        help="data folder of your copy of Creative-Writing-Bench, to read its run files by",
    )
    parser.add_argument(
        "--gamed",
        nargs=2,
        metavar=("CSV", "QUESTIONS"),
        help="AlpacaEval's df_gamed.csv and its question file (a path or alpaca-eval), for its length-controlled win "
        "rate as published",
    )
    parser.add_argument("--adjust", choices=["bh", "holm"], default="bh", help="of p-values")
    parser.add_argument("--alpha", type=float, default=0.05, help="level (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--power", action="store_true", help="effects that so many questions can show"
    )
    parser.add_argument("--questions", type=int, help="with --power and no files: how many")
    parser.add_argument(
        "--spread", type=float, help="with --power and no files: per-question standard deviation"
    )
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> None:
    if arguments.output is not None:
        check_output_folder("--output", arguments.output)
    from slackdlm.report.comparison import cells, power_table, rich_tables, write_comparison

    console = Console()
    planned = (arguments.questions, arguments.spread)
    if planned != (None, None):
        if not arguments.power or arguments.judgments or None in planned:
            raise ConfigError(
                "--questions and --spread plan a study: give both, with --power and without files"
            )
        rows = [("planned", *planned)]
        console.print(power_table(rows, alpha=arguments.alpha, width=console.width))
        return
    found, any_scored = _compared(arguments)
    for warning in found.warnings:
        console.print(Text("warning: ", style="bold yellow") + printable(warning))
    for table in rich_tables(found, width=console.width):
        console.print(table)
    if arguments.power:
        told = [(cells(line).what, line.estimate.num_scored, line.spread) for line in found.lines]
        console.print(power_table(told, alpha=found.alpha, width=console.width))
    if arguments.output is not None:
        console.print(Text(f"report: {write_comparison(found, arguments.output)}"))
    if not any_scored:
        raise DataError(
            "compare: no judgment has a score; run the judge again, or look at its errors"
        )


def _compared(arguments: argparse.Namespace) -> "tuple[Comparison, bool]":
    """What the files say, and whether any of their judgments has a score."""
    from slackdlm.evaluation.answer_files import read_answer_file, style_of
    from slackdlm.evaluation.benchmarks.creative_writing import read_criteria
    from slackdlm.evaluation.compare import compare
    from slackdlm.evaluation.comparison import Settings
    from slackdlm.evaluation.judgment_files import read_judgment_file
    from slackdlm.evaluation.statistics.style_control import COVARIATES, check_covariates

    wanted = arguments.style_control
    check_covariates(wanted or ())
    if not arguments.judgments:
        raise ConfigError("compare: give judgment files, or --power --questions N --spread S")
    if wanted is not None and not arguments.answers:
        raise ConfigError("--style-control: the answers are needed too; give --answers FILE ...")
    settings = Settings(
        adjustment=arguments.adjust,
        alpha=arguments.alpha,
        num_resamples=arguments.resamples,
        seed=arguments.seed,
        covariates=() if wanted is None else tuple(wanted) or COVARIATES,
    )
    answers = [answer for file in arguments.answers for answer in read_answer_file(file)]
    style = style_of(answers) if answers else None
    criteria = None if arguments.criteria is None else read_criteria(arguments.criteria)
    judgments = [
        judgment
        for file in arguments.judgments
        for judgment in read_judgment_file(file, criteria=criteria)
    ]
    found = compare(
        judgments,
        settings=settings,
        style=None if style is None else style.metadata,
        lengths=None if style is None else style.lengths,
        gamed=None if arguments.gamed is None else _gamed(*arguments.gamed),
    )
    return found, any(judgment.score is not None for judgment in judgments)


def _gamed(table: str, questions: str) -> "Gamed":
    from slackdlm.evaluation.benchmarks.alpaca_eval import read_questions
    from slackdlm.evaluation.question_source import question_file
    from slackdlm.evaluation.statistics.length_control import read_gamed

    ids = [question.id for question in read_questions(question_file(questions))]
    return read_gamed(Path(table), question_ids=ids)
