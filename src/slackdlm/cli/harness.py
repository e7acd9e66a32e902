"""``slackdlm harness``: lm-eval's tasks."""

import argparse
import importlib.util
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import TaskID
from rich.text import Text

from slackdlm.cli.checks import check_model, check_output_file, check_output_folder, check_recipe
from slackdlm.cli.decoding import (
    add_decoding,
    add_intervention,
    add_model,
    decoding,
    load_chosen,
)
from slackdlm.cli.flags import Commands
from slackdlm.errors import ConfigError
from slackdlm.terminal import printable, progress, table

if TYPE_CHECKING:
    from slackdlm.harness.run import HarnessResult, Score
    from slackdlm.harness.tasks import Tasks
    from slackdlm.models.loaded import LoadedModel
    from slackdlm.sampling.recipe import DecodingRecipe

_GEN_LENGTH = 256
"""lm-eval's own default of ``max_gen_toks``."""


def add_harness(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "harness",
        help="GSM8K, MMLU, GPQA, MBPP and lm-eval's other tasks",
        description="Needs the extra: pip install 'slackdlm[harness]'. Run it again to finish what is missing; what is "
        f"answered is never computed again. Without a length answers have the canvas of the model's "
        f"training if that is fixed, else room for {_GEN_LENGTH} tokens.",
    )
    add_model(parser)
    add = parser.add_argument
    add("--tasks", required=True, help="lm-eval's names, with commas between them, or task files")
    add("--num-fewshot", type=int, help="examples in the prompt (default: the task's)")
    add("--limit", type=int, help="only the first so many questions of each task")
    add(
        "--chat", action="store_true", help="ask in the model's chat format, as instruct models are"
    )
    add("--system", help="system message before the question; with --chat")
    add(
        "--include-path",
        type=Path,
        action="append",
        default=[],
        help="folder of task files of your own",
    )
    add("--mc-samples", type=int, default=128, help="masks per likelihood (default: %(default)s)")
    add(
        "--run-model-code",
        action="store_true",
        help="let tasks such as mbpp run the code that the model writes, here and unprotected",
    )
    add("--output", type=Path, help="results.json: scores, settings and every answer")
    add(
        "--journal", type=Path, help="folder; default: OUTPUT.journal; models and runs may share it"
    )
    add_decoding(parser)
    add_intervention(parser)
    parser.set_defaults(run=_harness)


def _harness(arguments: argparse.Namespace) -> None:
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError('harness: needs lm-eval; pip install "slackdlm[harness]"')
    check_model(arguments.model, arguments.adapter)
    check_recipe(arguments.recipe)
    _quiet()
    journal = _journal_folder(arguments)
    how = decoding(arguments, [(arguments.model, arguments.adapter)], gen_length=_GEN_LENGTH)
    if arguments.mc_samples < 1:
        raise ConfigError(f"--mc-samples: expected at least 1, got {arguments.mc_samples}")
    from slackdlm.harness.run import check_settings, write_results

    names = ("num_fewshot", "limit", "chat", "system")
    settings = {name: getattr(arguments, name) for name in names}
    check_settings(**settings)
    console = Console()
    tasks = _tasks(arguments)
    loaded = load_chosen(arguments)
    result = _run(
        loaded, tasks, how.recipe, settings, mc_samples=arguments.mc_samples, journal=journal
    )
    if arguments.output is not None:
        write_results(arguments.output, result)
    _show(console, result, name=loaded.name, canvas=how.canvas)
    if arguments.output is not None:
        console.print(Text(f"results: {arguments.output}"))


def _journal_folder(arguments: argparse.Namespace) -> Path | None:
    """Where answers are kept, once it and the output can be written; None: nowhere."""
    from slackdlm.journal import journal_of

    output, journal = arguments.output, arguments.journal
    check_output_file("--output", output, arguments.recipe)
    if journal is None and output is not None:
        journal = journal_of(output)
    if journal is not None:
        check_output_folder("--journal", journal, arguments.recipe, output)
    return journal


def _quiet() -> None:
    """lm-eval counts prompts with bars and logs every setting; ours shows what takes time. Read at its import."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    for name in ("lm_eval", "datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _tasks(arguments: argparse.Namespace) -> "Tasks":
    from slackdlm.harness.tasks import Tasks

    errors = Console(stderr=True)
    names = [name.strip() for name in arguments.tasks.split(",") if name.strip()]
    with errors.status("reading lm-eval's tasks"):
        tasks = Tasks(names, arguments.include_path, run_model_code=arguments.run_model_code)
    if arguments.run_model_code:
        errors.print(
            Text("warning: ", style="bold yellow")
            + Text("code that the model writes is run on this machine, with your rights")
        )
    return tasks


def _run(
    loaded: "LoadedModel",
    tasks: "Tasks",
    recipe: "DecodingRecipe",
    settings: dict[str, Any],
    *,
    mc_samples: int,
    journal: Path | None,
) -> "HarnessResult":
    """Answer with a progress bar for each kind of request."""
    from contextlib import ExitStack

    from slackdlm.harness.adapter import HarnessLM
    from slackdlm.harness.run import run_harness
    from slackdlm.journal import Journal

    bar_of: dict[str, TaskID] = {}
    with ExitStack() as stack:
        bars = stack.enter_context(progress(transient=True))

        def show(kind: str, done: int, total: int) -> None:
            if kind not in bar_of:
                bar_of[kind] = bars.add_task(kind, total=total)
            bars.update(bar_of[kind], completed=done, total=total)

        lm = HarnessLM(
            loaded,
            recipe.sampler,
            intervention=recipe.shift,
            mc_samples=mc_samples,
            journal=None if journal is None else Journal(journal),
            on_progress=show,
        )
        return run_harness(lm, tasks, **settings)


def _show(console: Console, result: "HarnessResult", *, name: str, canvas: str) -> None:
    headings = ("task", "metric", "value", "± stderr", "questions", "examples")
    rows: list[list[str]] = []
    for score in result.scores:
        read_by = "" if score.filter == "none" else f" by {score.filter}"
        examples = "" if score.num_fewshot is None else str(score.num_fewshot)
        figures = [_figure(score.value), _figure(score.stderr), _questions(score), examples]
        rows.append([score.task, score.metric + read_by, *figures])
    title, words = f"{name}: lm-eval {result.document['lm_eval']}", ("task", "metric")
    console.print(table(title, headings, rows, words=words, width=console.width))
    console.print(Text(canvas))
    for what, count in result.document["unused_generation_kwargs"].items():
        console.print(Text(f"not as the task asks in {count} requests: ") + printable(what))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _questions(score: "Score") -> str:
    if score.num_total is None or score.num_total == score.num_questions:
        return str(score.num_questions)
    return f"{score.num_questions}/{score.num_total}"
