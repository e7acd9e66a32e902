"""``slackdlm surface-form``: what a collapse map changes."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from slackdlm.cli.commands import Commands
from slackdlm.cli.inputs import check_files, check_model, refuse_beside
from slackdlm.cli.outputs import check_output_file
from slackdlm.errors import ConfigError
from slackdlm.terminal import table


def add_surface_form(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "surface-form", help="count the answers that a collapse map changes, and what it takes"
    )
    parser.add_argument(
        "files", type=Path, nargs="+", help="JSONL of gold answers, or answers.jsonl of a model"
    )
    parser.add_argument("--column", help="column of the gold answer (default: answer, or messages)")
    parser.add_argument(
        "--tokenizer", help="model folder or hub id; default: byte-level BPE trained on the answers"
    )
    parser.add_argument(
        "--slack-ratio",
        type=float,
        nargs=2,
        default=(0.0, 0.5),
        metavar=("LOW", "HIGH"),
        help="slack put into gold answers, as a share of their tokens (default: 0 0.5)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the slack (default: 0)")
    parser.add_argument("--output", type=Path, help="JSONL of every answer, for a model's answers")
    parser.set_defaults(run=_surface_form)


def _surface_form(arguments: argparse.Namespace) -> None:
    check_files(*arguments.files)
    check_model(arguments.tokenizer)
    check_output_file("--output", arguments.output, *arguments.files)
    from slackdlm.evaluation.surface_form import gold_texts, has_canvases
    from slackdlm.studies.surface_form import answers_tokenizer, final_value, survey

    with_canvases = [has_canvases(file) for file in arguments.files]
    if any(with_canvases):
        if not all(with_canvases):
            raise ConfigError("surface-form: give gold answers or a model's answers, not both")
        refuse_beside("with a model's answers", ("--column", arguments.column))
        _surface_of_answers(arguments)
        return
    refuse_beside("with gold answers", ("--output", arguments.output))
    answers = [
        text for file in arguments.files for text in gold_texts(file, column=arguments.column)
    ]
    low, high = arguments.slack_ratio
    if not 0 <= low <= high < 1000:
        raise ConfigError(f"--slack-ratio: expected 0 <= LOW <= HIGH < 1000, got {low} {high}")
    tokenizer, slack_id = answers_tokenizer(answers, arguments.tokenizer)
    title = f"{len(answers)} answers: canvas, fill with the true path, collapse"
    headings = ("collapse", "answers changed", "final values changed", "examples", "dropped")
    rows: list[list[str]] = []
    for mode in ("slack", "graves"):
        found = survey(
            answers, tokenizer, slack_id=slack_id, mode=mode, slack_ratio=(low, high), seed=arguments.seed
        )  # fmt: skip
        examples = ", ".join(f"{before} -> {after}" for before, after in found.examples)
        changed = f"{found.num_changed} / {found.num_answers}"
        finals = f"{found.num_finals_changed} / {found.num_finals}"
        finals = finals if found.num_finals else "none found"
        rows.append([mode, changed, finals, examples, _kinds(found.dropped)])
    console = Console()
    words = ("collapse", "examples", "dropped")
    console.print(table(title, headings, rows, words=words, width=console.width))
    if all(final_value(answer) is None for answer in answers):
        console.print("No final value was found: GSM8K's answers end with one behind ####.")


def _surface_of_answers(arguments: argparse.Namespace) -> None:
    from slackdlm.evaluation.jsonl import write_rows
    from slackdlm.evaluation.surface_form import check_answers
    from slackdlm.models.loading import load_model

    if arguments.tokenizer is None:
        raise ConfigError(
            "surface-form: a model's answers need its tokenizer; give --tokenizer MODEL"
        )
    loaded = load_model(arguments.tokenizer)

    def decode(ids: Sequence[int]) -> str:
        return str(loaded.tokenizer.decode(list(ids), skip_special_tokens=True))

    found = [
        answer
        for file in arguments.files
        for answer in check_answers(file, decode, slack_id=loaded.slack_id, eos_ids=loaded.eos_ids)
    ]
    headings = ("system", "collapse", "changed", "merging would change", "merging would drop")
    rows: list[list[str]] = []
    for system, mode in dict.fromkeys((one.system, one.collapse) for one in found):
        own = [one for one in found if (one.system, one.collapse) == (system, mode)]
        dropped: Counter[str] = Counter()
        for one in own:
            dropped.update(dict(one.dropped))
        changed = f"{sum(one.is_changed for one in own)} / {len(own)}"
        merged = f"{sum(one.would_change for one in own)} / {len(own)}"
        rows.append([system, mode, changed, merged, _kinds(dropped)])
    console = Console()
    title = f"{len(found)} answered turns"
    words = ("system", "collapse", "merging would drop")
    console.print(table(title, headings, rows, words=words, width=console.width))
    if arguments.output is not None:
        write_rows(arguments.output, (one._asdict() for one in found))


def _kinds(dropped: Mapping[Any, int]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in dropped.items()) or "nothing"
