"""``slackdlm compare``: compare systems."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from slackdlm.cli.checks import check_output_folder, refuse_beside
from slackdlm.cli.flags import Commands
from slackdlm.errors import ConfigError, DataError
from slackdlm.terminal import printable

if TYPE_CHECKING:
    from slackdlm.judgments import Game, Grade
    from slackdlm.study.comparison import Comparison, Settings
    from slackdlm.study.length_control import Gamed


def add_compare(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare", help="judgments of two or more systems -> intervals, tests and a report"
    )
    add = parser.add_argument
    add(
        "judgments",
        type=Path,
        nargs="*",
        help="our files, those of a benchmark, or folders of them",
    )
    add("--output", type=Path, help="folder for comparison.html, .md and .json")
    add(
        "--answers",
        type=Path,
        nargs="+",
        default=[],
        help="answer files, for length bias and style control",
    )
    add(
        "--style-control",
        nargs="*",
        metavar="COVARIATE",
        help="length, headers, lists, bold; without a name: all. Give judgment files before it",
    )
    add(
        "--criteria",
        type=Path,
        metavar="FOLDER",
        help="data folder of your copy of Creative-Writing-Bench, to read its run files by",
    )
    add(
        "--gamed",
        nargs=2,
        metavar=("CSV", "QUESTIONS"),
        help="AlpacaEval's df_gamed.csv and its question file (a path or alpaca-eval), for its length-controlled win "
        "rate",
    )
    add(
        "--tasks",
        metavar="FILE",
        help="WildBench's tasks (a path or hf://...), for its leaderboard's task-macro score",
    )
    add(
        "--differences",
        action="store_true",
        help="test the difference of every two systems, also of a leaderboard (more than 4 systems)",
    )
    _add_statistics(parser)
    parser.set_defaults(run=_compare)


def _add_statistics(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--adjust",
        choices=["bh", "holm"],
        default="bh",
        help="correction of the p-values (default: bh)",
    )
    add("--alpha", type=float, default=0.05, help="significance level (default: %(default)s)")
    add(
        "--resamples",
        type=int,
        default=10_000,
        help="of each bootstrap and test (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="of resamples and sign flips (default: 0)")
    add("--power", action="store_true", help="the smallest effects that so many questions can show")
    add("--questions", type=int, help="with --power and no files: how many")
    add("--spread", type=float, help="with --power and no files: standard deviation over questions")


def _compare(arguments: argparse.Namespace) -> None:
    if (arguments.questions, arguments.spread) != (None, None):
        _plan(arguments)
        return
    if arguments.output is not None:
        check_output_folder("--output", arguments.output)
    from slackdlm.report.comparison import cells, write_comparison
    from slackdlm.report.console import comparison_tables, power_table

    console = Console()
    comparison = _compared(arguments)
    for warning in comparison.warnings:
        console.print(Text("warning: ", style="bold yellow") + printable(warning))
    for table in comparison_tables(comparison, width=console.width):
        console.print(table)
    if arguments.power:
        rows = [
            (cells(line).what, line.estimate.num_scored, line.spread) for line in comparison.lines
        ]
        console.print(power_table(rows, alpha=comparison.alpha, width=console.width))
    if arguments.output is not None:
        console.print(Text(f"report: {write_comparison(comparison, arguments.output)}"))
    if not any(report.tally.num_scored for report in comparison.judges):
        raise DataError(
            "compare: no judgment has a score; run the judge again, or look at its errors"
        )


def _plan(arguments: argparse.Namespace) -> None:
    """What a study could show that nobody has made yet."""
    from slackdlm.report.console import power_table

    planned = (arguments.questions, arguments.spread)
    if not arguments.power or arguments.judgments or None in planned:
        raise ConfigError(
            "--questions and --spread plan a study: give both, with --power and without files"
        )
    refuse_beside("with --questions and --spread", ("--output", arguments.output))
    console = Console()
    rows = [("planned", *planned)]
    console.print(power_table(rows, alpha=arguments.alpha, width=console.width))


def _compared(arguments: argparse.Namespace) -> "Comparison":
    """What the files say."""
    from slackdlm.benchmarks.answers import check_judged, read_answer_file
    from slackdlm.benchmarks.creative_writing import read_criteria
    from slackdlm.benchmarks.judgment_files import read_judgment_files
    from slackdlm.benchmarks.style import style_of
    from slackdlm.study.compare import compare
    from slackdlm.study.published import Extras

    settings = _settings(arguments)
    answers = [answer for file in arguments.answers for answer in read_answer_file(file)]
    style = style_of(answers) if answers else None
    criteria = None if arguments.criteria is None else read_criteria(arguments.criteria)
    files = read_judgment_files(arguments.judgments, criteria=criteria, answers=answers)
    check_judged(files.judgments, answers)
    files.notes.extend(_unused(arguments, files.judgments))
    return compare(
        files.judgments,
        settings=settings,
        style=None if style is None else style.metadata,
        lengths=None if style is None else style.lengths,
        extras=Extras(
            gamed=None if arguments.gamed is None else _gamed(*arguments.gamed),
            task_groups=None if arguments.tasks is None else _task_groups(arguments.tasks),
        ),
        notes=files.notes,
    )


def _unused(arguments: argparse.Namespace, judgments: "Sequence[Game | Grade]") -> list[str]:
    """Files that no judgment asks for."""
    from slackdlm.benchmarks.judgment_files import benchmark_of

    judged = {benchmark_of(judgment) for judgment in judgments}
    given = {"gamed": "alpaca-eval", "tasks": "wildbench", "criteria": "creative-writing"}
    return [
        f"--{flag}: there is no judgment of {benchmark} to use it for"
        for flag, benchmark in given.items()
        if getattr(arguments, flag) is not None
        and not any(name.startswith(benchmark) for name in judged)
    ]


def _settings(arguments: argparse.Namespace) -> "Settings":
    from slackdlm.study.comparison import Settings
    from slackdlm.study.style_control import COVARIATES, check_covariates

    wanted = arguments.style_control
    check_covariates(wanted or ())
    if not arguments.judgments:
        raise ConfigError("compare: give judgment files, or --power --questions N --spread S")
    if wanted is not None and not arguments.answers:
        raise ConfigError("--style-control: the answers are needed too; give --answers FILE ...")
    return Settings(
        adjustment=arguments.adjust,
        alpha=arguments.alpha,
        num_resamples=arguments.resamples,
        seed=arguments.seed,
        differences=arguments.differences,
        covariates=() if wanted is None else tuple(wanted) or COVARIATES,
    )


def _task_groups(tasks: str) -> dict[str, tuple[str, ...]]:
    from slackdlm.benchmarks.question_source import question_file
    from slackdlm.benchmarks.wildbench import read_questions
    from slackdlm.benchmarks.wildbench_scores import task_groups

    return task_groups(read_questions(question_file(tasks)))


def _gamed(table: str, questions: str) -> "Gamed":
    from slackdlm.benchmarks.alpaca_eval import read_questions
    from slackdlm.benchmarks.question_source import question_file
    from slackdlm.study.length_control import read_gamed

    ids = [question.id for question in read_questions(question_file(questions))]
    return read_gamed(Path(table), question_ids=ids)
