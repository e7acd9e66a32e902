"""``slackdlm probe``: what a displaced token costs, from models and questions to a dose-response."""

import argparse
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.text import Text

from slackdlm.cli.checks import check_files, check_model, check_output_folder, check_recipe
from slackdlm.cli.decoding import (
    QUESTIONS_HELP,
    add_decoding,
    add_device,
    chosen_device,
    decoding,
)
from slackdlm.cli.flags import Commands
from slackdlm.cli.judge import add_judge_choice, judge_of
from slackdlm.errors import ConfigError, DataError
from slackdlm.terminal import printable, progress, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slackdlm.judging.budget import Budget
    from slackdlm.judging.judges import Judge
    from slackdlm.judging.protocols import JudgingProtocol
    from slackdlm.judging.run import Judged
    from slackdlm.judgments import Game
    from slackdlm.models.loaded import LoadedModel
    from slackdlm.records import Question
    from slackdlm.study.grid import Arm, Grid
    from slackdlm.study.result import Result


def add_probe(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "probe",
        help="displace tokens while models decode, and judge each against its own baseline answers",
        description="Run it again to finish what is missing, or with more rates, kinds, seeds and arms to add them.",
    )
    add = parser.add_argument
    add(
        "--arm",
        action="append",
        required=True,
        metavar="NAME=MODEL[+ADAPTER]",
        help="a model under study; several: the first is what the others are contrasted with",
    )
    add("--questions", required=True, help=QUESTIONS_HELP)
    add("--references", type=Path, help="MT-Bench's reference answers")
    add(
        "--benchmark",
        default="pairs",
        help="protocol of pairs: pairs (any question file), arena-hard, mt-bench-pairs, wildbench-pairs",
    )
    add("--first", type=int, help="only the first so many questions")
    add("--output", type=Path, required=True, help="folder of answers, judgments and report")
    add("--rates", type=float, nargs="+", default=[0.01, 0.02, 0.05, 0.1], help="shares of tokens")
    add(
        "--kinds",
        nargs="+",
        default=["shift", "substitute", "drop"],
        help="shift, swap, substitute, drop (default: shift and the controls substitute and drop)",
    )
    add("--seeds", type=int, default=1, help="decoding seeds of every intervention (default: 1)")
    add_device(parser)
    add_decoding(parser)
    add_judge_choice(parser)
    parser.set_defaults(run=_probe)


class _Study(NamedTuple):
    """What is asked for, checked and read."""

    benchmark: str
    protocol: "JudgingProtocol"
    questions: "Sequence[Question]"
    arms: "Sequence[Arm]"
    grid: "Grid"
    canvas: str
    judge: "Judge"
    budget: "Budget"
    max_missing: float
    output: Path

    @property
    def names(self) -> list[str]:
        """Of the arms."""
        return [arm.name for arm in self.arms]


def _probe(arguments: argparse.Namespace) -> None:
    study, console = _study(arguments), Console()
    console.print(Text(study.canvas, style="dim"))
    if arguments.dry_run:
        console.print(_dry_run(study))
        return
    from slackdlm.atomic import write_json
    from slackdlm.judgments import read_games
    from slackdlm.report.page import write_report
    from slackdlm.report.tables import PROBE_HEAD, probe_rows

    with closing(study.judge):
        runs = _answer_and_judge(study)
    files = [study.output / "judgments" / f"{name}.jsonl" for name in study.names]
    games = [game for file in files for game in read_games(file)]
    result = _result(study, games)
    write_json(study.output / "results.json", result.content())
    page = write_report(result, study.output)
    title, words = f"{study.benchmark}, judge {study.judge.name}", ("arm", "kind")
    console.print(table(title, PROBE_HEAD, probe_rows(result), words=words, width=console.width))
    for text in [*result.warnings, *result.summary]:
        console.print(printable(f"• {text}"))
    calls = sum(run.new.calls for run in runs)
    console.print(Text(f"{calls} new calls; report: {page}", style="bold"))
    _check_missing(games, max_missing=study.max_missing)


def _study(arguments: argparse.Namespace) -> _Study:
    """What the flags ask for; no model is loaded."""
    check_recipe(arguments.recipe)
    check_output_folder("--output", arguments.output)
    from slackdlm.benchmarks.question_source import question_file

    file = question_file(arguments.questions)
    check_files(file, arguments.references)
    models = [_parts(text)[1:] for text in arguments.arm]
    for path, adapter in models:
        check_model(path, adapter)
    from slackdlm.benchmarks.answers import check_first
    from slackdlm.judging.budget import Budget
    from slackdlm.judging.config import load_judge
    from slackdlm.study.grid import Grid, check_arms
    from slackdlm.study.probe import pair_protocol

    protocol = pair_protocol(arguments.benchmark)
    check_first(arguments.first)
    arms = [_arm(text, device=arguments.device) for text in arguments.arm]
    check_arms(arms)
    of_judge = [text for text in arguments.set if text.startswith("judge.")]
    judging = load_judge(arguments.judge, of_judge)
    others = [text for text in arguments.set if text not in of_judge]
    recipe, canvas = decoding(arguments, models, overrides=others)
    if recipe.intervention is not None:
        raise ConfigError(
            f"{arguments.recipe}: intervention: the probe disturbs by --rates and --kinds; leave the block out"
        )
    grid = Grid(
        sampler=recipe.sampler,
        rates=tuple(arguments.rates),
        kinds=tuple(arguments.kinds),
        num_seeds=arguments.seeds,
    )
    return _Study(
        benchmark=arguments.benchmark,
        protocol=protocol,
        arms=arms,
        grid=grid,
        canvas=canvas,
        judge=judge_of(judging),
        budget=Budget(judging.max_calls, judging.max_usd),
        max_missing=judging.max_missing,
        questions=protocol.read_questions(file, arguments.references)[: arguments.first],
        output=arguments.output,
    )


def _dry_run(study: _Study) -> str:
    from slackdlm.study.probe import dry_run_probe

    num_arms, num_questions = len(study.arms), len(study.questions)
    most = dry_run_probe(study.protocol, study.judge, study.questions, num_arms, study.grid)
    return (
        f"{len(study.grid.decodings()) * num_questions * num_arms} answers to decode, then at most {most.num_calls} "
        f"calls with about {most.prompt_tokens} prompt tokens where answers fill their canvas, cost {most.cost}; "
        "what fails or brings no verdict is asked for again on top; nothing was decoded or asked"
    )


def _answer_and_judge(study: _Study) -> "list[Judged]":
    """All of the probe that takes time, with progress bars."""
    from slackdlm.study import probe

    grid, output, judging = study.grid, study.output, (study.protocol, study.judge, study.questions)
    with progress() as bars:
        total = len(grid.decodings()) * len(study.questions)
        bar_of = {name: bars.add_task(f"answers of {name}", total=total) for name in study.names}
        probe.answer_probe(
            study.arms,
            study.questions,
            grid,
            output,
            on_answers=lambda arm, count: bars.advance(bar_of[arm], count),
        )
        total = probe.num_judgments(*judging, study.names, grid, output)
        bar = bars.add_task("judgments", total=total)
        return probe.judge_probe(
            *judging,
            study.names,
            grid,
            output,
            budget=study.budget,
            on_judged=lambda count, usd: bars.advance(bar, count),
        )


def _result(study: _Study, games: "list[Game]") -> "Result":
    """The dose-response, with the settings behind it."""
    from slackdlm.study.probe import read_doses
    from slackdlm.study.probe_figures import probe_result

    doses = read_doses(study.names, study.grid, study.output)
    arms = {arm.name: arm.model for arm in study.arms}
    return probe_result(
        games, doses, study.grid, arms, benchmark=study.benchmark, judge=study.judge
    )


def _check_missing(games: "list[Game]", *, max_missing: float) -> None:
    missing = sum(game.score is None for game in games)
    if games and missing / len(games) > max_missing:
        raise DataError(
            f"probe: {missing} of {len(games)} games have no score, more than --max-missing {max_missing:g}; "
            "run it again to ask for them"
        )


def _arm(text: str, *, device: str | None) -> "Arm":
    from slackdlm.models.loading import load_model
    from slackdlm.study.grid import Arm

    name, path, adapter = _parts(text)

    def load() -> "LoadedModel":
        return load_model(path, adapter=adapter, device=chosen_device(device))

    return Arm(name, path if adapter is None else f"{path}+{adapter}", load)


def _parts(text: str) -> tuple[str, str, str | None]:
    """Name, model and adapter of one --arm."""
    name, equals, model = text.partition("=")
    path, plus, adapter = model.partition("+")
    if not (name and equals and path) or (plus and not adapter):
        raise ConfigError(f"--arm: expected NAME=MODEL or NAME=MODEL+ADAPTER, got {text!r}")
    return name, path, adapter if plus else None
