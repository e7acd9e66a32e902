"""``slackdlm generate``: decode prompts, and answer question files."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from slackdlm.cli.checks import (
    check_files,
    check_model,
    check_output_file,
    check_recipe,
    refuse_beside,
)
from slackdlm.cli.decoding import (
    QUESTIONS_HELP,
    add_decoding,
    add_intervention,
    add_model,
    decoding,
    load_chosen,
)
from slackdlm.cli.flags import Commands
from slackdlm.errors import ConfigError, DataError, counted
from slackdlm.terminal import printable

if TYPE_CHECKING:
    from slackdlm.models.loaded import LoadedModel
    from slackdlm.records import Question
    from slackdlm.sampling.answering import Answered, Shard
    from slackdlm.sampling.recipe import DecodingRecipe


def add_generate(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "generate", help="decode prompts from an argument, a JSONL file or standard input"
    )
    add_model(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--prompt", help="one user text")
    source.add_argument("--input", help="JSONL of questions: a path or hf://datasets/...")
    parser.add_argument("--column", help="column of the question (default: messages, or prompt)")
    parser.add_argument("--first", type=int, help="only the first so many questions")
    parser.add_argument("--output", type=Path, help="answers.jsonl; without it texts are printed")
    parser.add_argument(
        "--replay", type=Path, metavar="HTML", help="a page that plays the decoding step by step"
    )
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="JSONL",
        help="the same as data: a line per answer with positions, tokens, confidences and displacements of every step",
    )
    add_decoding(parser)
    add_intervention(parser)
    parser.set_defaults(run=_generate)


def _generate(arguments: argparse.Namespace) -> None:
    check_model(arguments.model, arguments.adapter)
    check_recipe(arguments.recipe)
    from slackdlm.benchmarks.answers import check_first, read_questions
    from slackdlm.benchmarks.question_source import question_file

    file = None if arguments.input is None else question_file(arguments.input)
    check_files(file)

    check_first(arguments.first)
    if arguments.input is None:
        refuse_beside(
            "without --input", ("--first", arguments.first), ("--column", arguments.column)
        )
    from slackdlm.sampling.answering import check_output

    chosen = decoding(arguments, [(arguments.model, arguments.adapter)])
    if file is not None:
        questions = read_questions(file, column=arguments.column, first=arguments.first)
    else:
        text = (
            arguments.prompt
            if arguments.prompt is not None
            else sys.stdin.read().removesuffix("\n")
        )
        if not text.strip():
            raise ConfigError(
                "generate: no prompt; give --prompt TEXT, --input FILE or text on standard input"
            )
        from slackdlm.records import Question

        questions = [Question("0", None, ({"role": "user", "content": text},))]
    for flag, given, endings in (
        ("--replay", arguments.replay, (".html", ".htm")),
        ("--trace", arguments.trace, (".jsonl",)),
    ):
        if given is None:
            continue
        if arguments.output is not None:
            raise ConfigError(f"generate: {flag} shows printed answers; leave --output out")
        if given.suffix not in endings:
            raise ConfigError(f"{flag} {given}: expected a name that ends in {endings[0]}")
        check_output_file(flag, given, file, arguments.recipe)
    if arguments.output is not None:
        check_output_file("--output", arguments.output, file, arguments.recipe)
        check_output(arguments.output)
    loaded = load_chosen(arguments)
    Console(stderr=True).print(Text(chosen.canvas, style="dim"))
    if arguments.output is not None:
        _check_complete(_write_answers(loaded, questions, chosen.recipe, arguments.output))
    else:
        _print_answers(loaded, questions, chosen.recipe, arguments.replay, arguments.trace)


def _print_answers(
    loaded: "LoadedModel",
    questions: "Sequence[Question]",
    recipe: "DecodingRecipe",
    replay: Path | None,
    trace: Path | None,
) -> None:
    """Texts to standard output as they come, all else to standard error; then the pages asked for."""
    from rich.progress import track

    from slackdlm.jsonl import write_rows
    from slackdlm.report.page import write_replay
    from slackdlm.sampling.config import recorded
    from slackdlm.sampling.sampler import Sampler
    from slackdlm.sampling.trace import frames, trace_row

    console, errors = Console(), Console(stderr=True)
    is_traced = replay is not None or trace is not None
    config, shift = recipe.sampler, recipe.shift
    sampler = Sampler(loaded, replace(config, batch_size=1, trace=is_traced), shift)
    replays: list[dict[str, Any]] = []
    traces: list[dict[str, Any]] = []
    for row, question in enumerate(track(questions, "decoding", console=errors, transient=True)):
        prompt = [dict(message) for message in question.messages]
        (generation,) = sampler.generate([prompt], row_ids=[row])
        console.print(printable(generation.text), soft_wrap=True)
        if not generation.text.strip():
            which = "" if len(questions) == 1 else f" to question {question.id}"
            errors.print(printable(f"the answer{which} is empty"), style="dim")
        if not is_traced:
            continue
        shown = {"prompt": prompt[-1]["content"], "text": generation.text}
        traces.append({"id": question.id} | shown | trace_row(generation))
        replays.append(
            {
                "arm": loaded.name,
                "kind": "none" if shift is None else shift.kind,
                "rate": 0.0 if shift is None else shift.rate,
                "frames": frames(loaded, generation),
            }
            | shown
        )
    if trace is not None:
        write_rows(trace, traces)
        errors.print(Text(f"trace: {trace}", style="bold"))
    if replay is not None:
        write_replay(replay, replays, title="Decoding, step by step", settings=recorded(config))
        errors.print(Text(f"replay: {replay}", style="bold"))


def add_answer(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "answer",
        help="answer a question file, resumably and on any number of processes",
        description="Run it again to finish what is missing. Under torchrun or accelerate launch every process "
        "answers its share, and the last to finish writes the output.",
    )
    add_model(parser)
    parser.add_argument("--questions", required=True, help=QUESTIONS_HELP)
    parser.add_argument(
        "--benchmark",
        choices=["arena-hard", "mt-bench", "wildbench", "creative-writing", "alpaca-eval"],
        help="format of the question file (default: JSONL with prompt or messages)",
    )
    parser.add_argument(
        "--column", help="column of a plain question (default: messages, or prompt)"
    )
    parser.add_argument("--first", type=int, help="only the first so many questions")
    parser.add_argument("--output", type=Path, required=True, help="answers.jsonl")
    parser.add_argument(
        "--export", type=Path, help="the answers in the format of the benchmark's own tools too"
    )
    parser.add_argument("--name", help="name of this system in the file (default: the model's)")
    add_decoding(parser)
    add_intervention(parser)
    parser.set_defaults(run=_answer)


def _answer(arguments: argparse.Namespace) -> None:
    check_model(arguments.model, arguments.adapter)
    check_recipe(arguments.recipe)
    from slackdlm.benchmarks.question_source import question_file

    file = question_file(arguments.questions)
    check_files(file)
    from slackdlm.benchmarks.answers import check_first, read_benchmark_questions
    from slackdlm.sampling.answering import check_output, shard_from_environment

    chosen = decoding(arguments, [(arguments.model, arguments.adapter)])
    check_first(arguments.first)
    if arguments.benchmark is None:
        refuse_beside("without --benchmark", ("--export", arguments.export))
    shard = shard_from_environment()
    questions = read_benchmark_questions(
        file, arguments.benchmark, column=arguments.column, first=arguments.first
    )
    check_output_file("--output", arguments.output, file, arguments.recipe)
    check_output_file("--export", arguments.export, file, arguments.recipe, arguments.output)
    check_output(arguments.output)
    loaded = load_chosen(arguments)
    if shard.rank == 0:
        Console(stderr=True).print(Text(chosen.canvas, style="dim"))
    answered = _write_answers(
        loaded, questions, chosen.recipe, arguments.output, name=arguments.name, shard=shard
    )
    if answered is not None and answered.num_answers and arguments.export and arguments.benchmark:
        from slackdlm.benchmarks.answers import read_answers, write_benchmark_answers

        rows = read_answers(arguments.output)
        write_benchmark_answers(arguments.export, rows, questions, arguments.benchmark)
        Console().print(Text(f"for {arguments.benchmark}'s own tools: {arguments.export}"))
    _check_complete(answered)


def _write_answers(
    loaded: "LoadedModel",
    questions: "Sequence[Question]",
    recipe: "DecodingRecipe",
    output: Path,
    *,
    name: str | None = None,
    shard: "Shard | None" = None,
) -> "Answered | None":
    """Answer with a progress bar, then say what was written; None: another process writes it."""
    from rich.progress import Progress

    from slackdlm.sampling.answering import ALONE, answer_questions
    from slackdlm.sampling.sampler import Sampler

    shard = shard or ALONE
    share = questions[shard.rank :: shard.world_size]
    total = sum(1 + len(question.later_turns) for question in share)
    with Progress(console=Console(stderr=True), disable=shard.rank > 0) as progress:
        bar = progress.add_task("answers", total=total)
        answered = answer_questions(
            Sampler(loaded, recipe.sampler, recipe.shift),
            questions,
            output,
            system=name,
            shard=shard,
            on_answers=lambda count: progress.advance(bar, count),
        )
    if answered is None:
        Console().print(f"process {shard.rank} of {shard.world_size}: its share is done")
    else:
        Console().print(Text(f"{counted(answered.num_answers, 'answer')}: {answered.output}"))
    return answered


def _check_complete(answered: "Answered | None") -> None:
    """DataError if turns could not be answered; the others are written."""
    if answered is not None and answered.unanswered:
        first = answered.unanswered[0]
        raise DataError(
            f"{answered.output}: {len(answered.unanswered)} turns have no answer and no line, the first is turn "
            f"{first.turn} of question {first.question_id!a} ({first.error}); the others are written"
        )
