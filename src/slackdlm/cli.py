"""The command line: one command per task, each loads what it is given and calls one function."""

import argparse
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from slackdlm.errors import ConfigError, DataError, SlackDLMError
from slackdlm.terminal import printable

if TYPE_CHECKING:
    from slackdlm.evaluation.answering import Shard
    from slackdlm.evaluation.benchmarks.items import Question
    from slackdlm.evaluation.judges import Judge
    from slackdlm.models.loaded import LoadedModel
    from slackdlm.sampling.intervention import ShiftIntervention
    from slackdlm.sampling.sampler import SamplerConfig
    from slackdlm.training.config import Recipe

# torch and transformers take seconds to import: each command imports what it needs.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it did what was asked, 2 after an error of the user's, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    errors = Console(stderr=True)
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=errors)]
    )
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        arguments.run(arguments)
    except SlackDLMError as error:
        errors.print(Text("error: ", style="bold red") + Text(str(error)))
        return 2
    except KeyboardInterrupt:
        errors.print("interrupted")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slackdlm",
        description="Fine-tune, decode, probe and evaluate masked diffusion language models "
        "with alignment-flexible supervision.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_train(commands)
    _add_generate(commands)
    _add_answer(commands)
    _add_judge(commands)
    _add_chat(commands)
    _add_compare(commands)
    _add_surface_form(commands)
    _add_report(commands)
    _add_bench(commands)
    return parser


_Commands = argparse._SubParsersAction  # pyright: ignore[reportPrivateUsage]


def _add_demo(commands: "_Commands[argparse.ArgumentParser]") -> None:
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
    from slackdlm.studies.demo import run_demo
    from slackdlm.studies.demo_plan import QUICK, DemoPlan

    if arguments.seeds < 1:
        raise ConfigError(f"--seeds: expected at least 1, got {arguments.seeds}")
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
    for sentence in [*results["warnings"], *results["summary"]]:
        console.print(Text(f"• {sentence}"))
    console.print(Text(f"report: {report.resolve()}", style="bold"))


def _add_train(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("train", help="train what a recipe says")
    parser.add_argument("recipe", type=Path, help="YAML file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override, e.g. data.train=x",
    )
    parser.add_argument("--output", type=Path, help="run folder (default: runs/<recipe name>)")
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--show",
        type=int,
        metavar="N",
        help="print the first N samples as the model sees them, and stop",
    )
    parser.add_argument(
        "--plan", action="store_true", help="print what the run needs in memory, and stop"
    )
    parser.add_argument("--memory", type=float, metavar="GB", help="--plan: what each GPU has")
    parser.add_argument(
        "--processes", type=int, default=1, help="--plan: number of GPUs (default: 1)"
    )
    parser.add_argument(
        "--sharded", action="store_true", help="--plan: weights divided over them (FSDP2, ZeRO-3)"
    )
    parser.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> None:
    from slackdlm.training.config import load_recipe
    from slackdlm.training.run import train

    recipe = load_recipe(arguments.recipe, arguments.set)
    if arguments.plan:
        _print_plan(recipe, arguments)
        return
    if arguments.show is not None:
        _print_samples(recipe, arguments.show)
        return
    output = arguments.output or Path("runs") / recipe.name
    result = train(recipe, output=output, resume=arguments.resume, progress=not arguments.quiet)
    console = Console()
    table = Table(
        title=f"{recipe.name}: {result.steps} steps", title_justify="left", show_header=False
    )
    for name, value in (
        ("training loss, last 50 steps (nats per position)", result.train_loss),
        ("evaluation CE bound (nats per token)", result.eval_ce),
        ("evaluation of the objective (nats per token)", result.eval_objective),
        ("seconds", result.seconds),
        ("canvas positions per second", result.tokens_per_second),
    ):
        table.add_row(name, "–" if value is None else f"{value:.4g}")
    console.print(table)
    console.print(Text(f"model: {result.output / 'model'}"))


_STYLES = {
    "prompt": "dim",
    "visible": "green",
    "masked": "black on yellow",
    "slack": "bold magenta",
    "padding": "blue",
    "target": "cyan",
}


def _print_samples(recipe: "Recipe", count: int) -> None:
    from slackdlm.training.preview import Piece, preview_recipe

    if count < 1:
        raise ConfigError(f"--show: expected at least 1, got {count}")

    def line(name: str, pieces: Sequence[Piece]) -> Text:
        parts = (printable(piece.text).plain for piece in pieces)
        styled = [(part, _STYLES[p.kind]) for part, p in zip(parts, pieces, strict=True)]
        return Text.assemble((f"{name:>8} ", "bold"), *styled)

    console = Console()
    legend = [(f" {kind} ", style) for kind, style in _STYLES.items()]
    console.print(Text.assemble(("  legend ", "bold"), *legend))
    for shown in preview_recipe(recipe, count=count):
        console.print()
        console.print(printable(shown.title), style="bold")
        console.print(line("sees", shown.seen), soft_wrap=True)
        console.print(line("canvas", shown.hidden), soft_wrap=True)
        console.print(line("target", [Piece(shown.target, "target")]), soft_wrap=True)


def _print_plan(recipe: "Recipe", arguments: argparse.Namespace) -> None:
    from slackdlm.training.plan import largest_micro_batch, plan_memory

    if arguments.processes < 1:
        raise ConfigError(f"--processes: expected at least 1, got {arguments.processes}")
    if arguments.memory is not None and not 0 < arguments.memory < float("inf"):
        raise ConfigError(f"--memory: expected gigabytes above 0, got {arguments.memory}")
    processes: int = arguments.processes
    sharded: bool = arguments.sharded
    plan = plan_memory(recipe, num_processes=processes, sharded=sharded)
    table = Table(
        title=f"{recipe.name}: {plan.num_parameters:,} parameters, {plan.num_trainable:,} trained;"
        f" {arguments.processes} processes x {plan.micro_batch_size} samples x"
        f" {plan.num_positions} positions",
        title_justify="left",
    )
    table.add_column("per process")
    table.add_column("GB", justify="right")
    for name, value in (
        ("weights", plan.weights),
        ("gradients", plan.gradients),
        ("optimizer", plan.optimizer),
        ("optimizer's step, for a moment", plan.update),
        ("activations", plan.activations),
        ("loss buffers", plan.loss_buffers),
        ("peak: not all of these at the same time", plan.peak),
    ):
        table.add_row(name, f"{value / 1e9:.3f}")
    console = Console()
    console.print(table)
    if arguments.memory is None:
        return
    size = largest_micro_batch(
        recipe, memory=arguments.memory * 1e9, num_processes=processes, sharded=sharded
    )
    if size is None:
        console.print(
            Text(
                f"not even one sample fits into {arguments.memory:g} GB; try --processes with"
                " --sharded, training.gradient_checkpointing, model.lora or a shorter canvas"
            )
        )
        return
    console.print(
        Text(f"largest training.micro_batch_size in {arguments.memory:g} GB: {size}", style="bold")
    )


def _add_generate(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "generate", help="decode prompts from an argument, a JSONL file or standard input"
    )
    _add_model(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--prompt", help="one user text")
    source.add_argument("--input", type=Path, help="JSONL of questions")
    parser.add_argument(
        "--column", default="prompt", help="column of the question (default: %(default)s)"
    )
    parser.add_argument("--first", type=int, help="only the first so many questions")
    parser.add_argument("--output", type=Path, help="answers.jsonl; without it texts are printed")
    parser.add_argument(
        "--replay", type=Path, metavar="HTML", help="a page that plays the decoding step by step"
    )
    _add_decoding(parser)
    parser.set_defaults(run=_generate)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="model folder or hub id")
    parser.add_argument("--adapter", help="LoRA adapter folder or hub id")


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--canvas-length", type=int, required=True, help="positions, slack and padding included"
    )
    parser.add_argument(
        "--steps", type=int, help="denoising steps (default: one per position, or by --bound)"
    )
    parser.add_argument(
        "--block-length", type=int, help="positions per block (default: the whole canvas)"
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    parser.add_argument(
        "--remasking",
        choices=["low_confidence", "random", "entropy", "margin", "threshold", "entropy_bound"],
        default="low_confidence",
        help="which cells are decoded next (default: %(default)s)",
    )
    parser.add_argument(
        "--bound", type=float, help="confidence of threshold, or nats of entropy_bound"
    )
    parser.add_argument(
        "--guidance", type=float, default=0.0, help="classifier-free guidance (default: none)"
    )
    for flag, what in (
        ("--forbid-end-of-text", "never propose the end of text"),
        ("--delay-end", "decode cells that propose an end last"),
        ("--early-stop", "rest once the text is settled; does not change it"),
    ):
        parser.add_argument(flag, action="store_true", help=what)
    parser.add_argument(
        "--refill",
        type=int,
        default=0,
        help="further steps for the least certain slack (default: 0)",
    )
    parser.add_argument(
        "--cache",
        choices=["none", "prefix", "dual"],
        default="none",
        help="keep keys and values within a block; changes answers (default: none)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--intervention",
        choices=["shift", "substitute", "drop", "swap"],
        help="disturb the decoding",
    )
    parser.add_argument("--direction", choices=["left", "right", "both"], default="both")
    parser.add_argument("--when", choices=["always", "early", "late"], default="always")
    parser.add_argument(
        "--rate", type=float, help="share of content tokens the intervention touches"
    )


def _decoding(arguments: argparse.Namespace) -> tuple["SamplerConfig", "ShiftIntervention | None"]:
    """How to decode, from the flags of :func:`_add_decoding`."""
    from slackdlm.sampling.intervention import ShiftIntervention
    from slackdlm.sampling.sampler import SamplerConfig

    if arguments.seed < 0:
        raise ConfigError(f"--seed: expected at least 0, got {arguments.seed}")
    if (arguments.intervention is None) != (arguments.rate is None):
        raise ConfigError("--intervention and --rate: give both or neither")
    intervention = None
    if arguments.intervention is not None:
        intervention = ShiftIntervention(
            arguments.rate,
            kind=arguments.intervention,
            direction=arguments.direction,
            when=arguments.when,
            seed=arguments.seed,
        )
    config = SamplerConfig(
        canvas_length=arguments.canvas_length,
        steps=arguments.steps,
        block_length=arguments.block_length,
        temperature=arguments.temperature,
        remasking=arguments.remasking,
        bound=arguments.bound,
        guidance=arguments.guidance,
        forbid_end_of_text=arguments.forbid_end_of_text,
        delay_end=arguments.delay_end,
        early_stop=arguments.early_stop,
        refill=arguments.refill,
        cache=arguments.cache,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
    )
    return config, intervention


def _generate(arguments: argparse.Namespace) -> None:
    from rich.progress import track

    from slackdlm.evaluation.answering import journal_folder
    from slackdlm.evaluation.answers import check_first, read_questions
    from slackdlm.models.loading import load_model
    from slackdlm.report.page import write_replay
    from slackdlm.sampling.frames import frames
    from slackdlm.sampling.sampler import Sampler

    config, intervention = _decoding(arguments)
    check_first(arguments.first)
    if arguments.input is not None:
        questions = read_questions(arguments.input, column=arguments.column, first=arguments.first)
        prompts = [[dict(message) for message in question.messages] for question in questions]
    else:
        text = arguments.prompt if arguments.prompt is not None else sys.stdin.read()
        if not text.strip():
            raise ConfigError(
                "generate: no prompt; give --prompt TEXT, --input FILE or text on standard input"
            )
        prompts = [[{"role": "user", "content": text}]]
        from slackdlm.evaluation.benchmarks.items import Question

        questions = [Question("0", None, tuple(prompts[0]))]
    if arguments.output is not None:
        if arguments.replay is not None:
            raise ConfigError("generate: --replay shows printed answers; leave --output out")
        journal_folder(arguments.output)
    loaded = load_model(arguments.model, adapter=arguments.adapter)
    console = Console()
    if arguments.output is not None:
        _write_answers(loaded, questions, config, intervention, arguments.output)
        return
    traced = replace(config, batch_size=1, trace=arguments.replay is not None)
    sampler = Sampler(loaded, traced, intervention)
    replays: list[dict[str, object]] = []
    for row, prompt in enumerate(track(prompts, console=Console(stderr=True), transient=True)):
        (generation,) = sampler.generate([prompt], row_ids=[row])
        console.print(printable(generation.text), soft_wrap=True)
        if arguments.replay is not None:
            replays.append(
                {
                    "arm": loaded.name,
                    "prompt": prompt[-1]["content"],
                    "kind": "none" if intervention is None else intervention.kind,
                    "rate": 0.0 if intervention is None else intervention.rate,
                    "text": generation.text,
                    "frames": frames(loaded, generation),
                }
            )
    if arguments.replay is not None:
        settings = {
            key: value
            for key, value in asdict(traced).items()
            if key not in ("trace", "batch_size")
        }
        write_replay(arguments.replay, replays, title="Decoding, step by step", settings=settings)
        console.print(Text(f"replay: {arguments.replay}", style="bold"))


def _add_answer(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "answer",
        help="answer a question file, resumably and on any number of processes",
        description="Run it again to finish what is missing. Under torchrun or accelerate launch every process "
        "answers its share, and the last to finish writes the output.",
    )
    _add_model(parser)
    parser.add_argument("--questions", type=Path, required=True, help="question file")
    parser.add_argument(
        "--benchmark",
        choices=["arena-hard", "mt-bench", "wildbench"],
        help="format of the question file (default: JSONL with prompt or messages)",
    )
    parser.add_argument(
        "--column", default="prompt", help="column of a plain question (default: %(default)s)"
    )
    parser.add_argument("--first", type=int, help="only the first so many questions")
    parser.add_argument("--output", type=Path, required=True, help="answers.jsonl")
    parser.add_argument("--name", help="name of this system in the file (default: the model's)")
    parser.add_argument("--device", help="default: the process's GPU, or the CPU")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    _add_decoding(parser)
    parser.set_defaults(run=_answer)


def _answer(arguments: argparse.Namespace) -> None:
    import torch

    from slackdlm.evaluation.answering import journal_folder, shard_from_environment
    from slackdlm.evaluation.answers import check_first, read_benchmark_questions
    from slackdlm.models.loading import load_model

    config, intervention = _decoding(arguments)
    check_first(arguments.first)
    shard = shard_from_environment()
    questions = read_benchmark_questions(
        arguments.questions, arguments.benchmark, column=arguments.column, first=arguments.first
    )
    journal_folder(arguments.output)
    device = arguments.device
    if device is None and torch.cuda.is_available():
        device = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    loaded = load_model(
        arguments.model, adapter=arguments.adapter, dtype=arguments.dtype, device=device
    )
    _write_answers(
        loaded, questions, config, intervention, arguments.output, name=arguments.name, shard=shard
    )


def _write_answers(
    loaded: "LoadedModel",
    questions: "Sequence[Question]",
    config: "SamplerConfig",
    intervention: "ShiftIntervention | None",
    output: Path,
    *,
    name: str | None = None,
    shard: "Shard | None" = None,
) -> None:
    """Answer with a progress bar, then say what was written and what is missing."""
    from rich.progress import Progress

    from slackdlm.evaluation.answering import ALONE, answer_questions

    shard = shard or ALONE
    share = questions[shard.rank :: shard.world_size]
    total = sum(1 + len(question.later_turns) for question in share)
    with Progress(console=Console(stderr=True), disable=shard.rank > 0) as progress:
        bar = progress.add_task("answers", total=total)
        answered = answer_questions(
            loaded,
            questions,
            config,
            output,
            intervention=intervention,
            system=name,
            shard=shard,
            on_answers=lambda count: progress.advance(bar, count),
        )
    if answered is None:
        Console().print(f"process {shard.rank} of {shard.world_size}: its share is done")
        return
    Console().print(Text(f"{answered.num_answers} answers: {answered.output}"))
    if answered.unanswered:
        first = answered.unanswered[0]
        raise DataError(
            f"{output}: {len(answered.unanswered)} turns have no answer and no line, the first is turn "
            f"{first.turn} of question {first.question_id!a} ({first.error}); the others are written"
        )


def _add_judge(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "judge",
        help="judge answers: every pair in both orders, or every answer by itself",
        description="Run it again to finish what is missing; what is judged is never asked again.",
    )
    add = parser.add_argument
    add("--benchmark", required=True, help="protocol: arena-hard, mt-bench, wildbench, pairs, ...")
    add("--questions", type=Path, required=True, help="the benchmark's question file")
    add("--references", type=Path, help="MT-Bench's reference answers")
    add("--answers", type=Path, nargs="+", required=True, help="ours or the benchmark's format")
    add("--baseline", type=Path, help="answers of the system that they are compared to")
    add("--output", type=Path, required=True, help="judgments.jsonl")
    add("--journal", type=Path, help="default: OUTPUT.sqlite; processes may share it")
    add("--export", type=Path, help="the judgments in the benchmark's own format too")
    add("--judge", choices=["openai", "local", "replay", "toy"], required=True)
    add("--model", help="the judge: its name at the endpoint, a folder or a hub id")
    add("--recorded", type=Path, help="judgments that a replay repeats")
    add("--base-url", help="of any OpenAI-compatible endpoint (default: OpenAI's)")
    add("--key-variable", help="environment variable of the key (at OpenAI: OPENAI_API_KEY)")
    add("--temperature", type=float, default=0.0, help="below 0: none is sent (default: 0)")
    add("--top-p", type=float)
    add("--judge-seed", type=int)
    add("--max-tokens", type=int, default=16_000, help="of a reply (default: %(default)s)")
    add("--completion-tokens", action="store_true", help="send it as max_completion_tokens")
    add("--concurrency", type=int, default=8, help="calls at a time (default: %(default)s)")
    add("--timeout", type=float, default=600.0, help="seconds of one try (default: %(default)s)")
    add("--usd-per-million", type=float, nargs=2, metavar=("PROMPT", "REPLY"), help="prices")
    add("--max-calls", type=int, help="begin no more")
    add("--max-usd", type=float, help="begin no call that could exceed it")
    add(
        "--max-missing",
        type=float,
        default=0.05,
        help="share of judgments without a score above which the exit code is 2 (default: %(default)s)",
    )
    add("--dry-run", action="store_true", help="count calls and tokens, ask nothing")
    parser.set_defaults(run=_judge)


def _judge(arguments: argparse.Namespace) -> None:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from slackdlm.evaluation.judge_files import (
        JudgingFiles,
        check_missing,
        count_calls,
        judge_files,
    )
    from slackdlm.evaluation.judging import Budget

    files = JudgingFiles(
        benchmark=arguments.benchmark,
        questions=arguments.questions,
        answers=arguments.answers,
        output=arguments.output,
        baseline=arguments.baseline,
        references=arguments.references,
        journal=arguments.journal,
        export=arguments.export,
    )
    budget = Budget(arguments.max_calls, arguments.max_usd)
    judge, console = _judge_of(arguments), Console()
    if arguments.dry_run:
        counted = count_calls(files, judge)
        cost = (
            "not known"
            if counted.worst_usd is None
            else f"at most about {counted.worst_usd:.2f} USD"
        )
        console.print(
            f"{counted.num_calls} calls of {counted.num_judgments} judgments ({counted.num_done} done, "
            f"{counted.num_without_call} with nothing to ask), about {counted.prompt_tokens} prompt tokens, cost {cost}"
        )
        return
    columns = (TextColumn("judgments"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = (*columns, TextColumn("{task.fields[cost]}"))
    progress = Progress(*shown, console=Console(stderr=True))
    bar = progress.add_task("judgments", total=None, cost="")

    def begin(total: int) -> None:
        progress.update(bar, total=total)
        progress.start()

    try:
        judged = judge_files(
            files,
            judge,
            budget=budget,
            on_plan=begin,
            on_judged=lambda count, usd: progress.update(
                bar, advance=count, cost="" if usd is None else f"{usd:.4f} USD"
            ),
        )
    finally:
        progress.stop()
    counts = judged.tally
    table = Table(title=f"{files.benchmark}, judge {judge.name!a}", title_justify="left")
    headings = (
        "judgments",
        "scored",
        "failed",
        "no verdict",
        "off the scale",
        "calls",
        "tokens",
        "USD",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    tokens = judged.prompt_tokens + judged.completion_tokens
    usd = "–" if judged.usd is None else f"{judged.usd:.4f}"
    figures = (counts.num_total, counts.num_scored, counts.num_failed, counts.num_unparsable)
    figures += (counts.num_out_of_range, judged.calls, tokens)
    table.add_row(*map(str, figures), usd)
    console.print(table)
    console.print(Text(f"{judged.new_calls} new calls; judgments: {files.output}"))
    check_missing(judged, max_missing=arguments.max_missing)


def _judge_of(arguments: argparse.Namespace) -> "Judge":
    """The judge that the flags name."""
    if arguments.judge == "toy":
        from slackdlm.evaluation.judges import ExactJudge
        from slackdlm.studies.toy_judge import compare

        return ExactJudge("toy-parser-1", compare)
    if arguments.judge == "replay":
        from slackdlm.evaluation.judges import ReplayJudge
        from slackdlm.evaluation.judgment_files import read_judgment_file

        if arguments.recorded is None:
            raise ConfigError("--judge replay: give the recorded judgments with --recorded FILE")
        recorded = read_judgment_file(arguments.recorded)
        return ReplayJudge(arguments.model or "recorded", recorded)
    if arguments.model is None:
        raise ConfigError(f"--judge {arguments.judge}: give the judge's name with --model")
    if arguments.judge == "local":
        from slackdlm.evaluation.local_judge import LocalJudge

        return LocalJudge(
            arguments.model,
            temperature=max(arguments.temperature, 0.0),
            max_tokens=arguments.max_tokens,
            seed=arguments.judge_seed or 0,
        )
    from slackdlm.evaluation.endpoint import OPENAI_URL, EndpointConfig, EndpointJudge

    url = arguments.base_url or OPENAI_URL
    variable = arguments.key_variable or ("OPENAI_API_KEY" if url == OPENAI_URL else None)
    prices = arguments.usd_per_million
    return EndpointJudge(
        EndpointConfig(
            model=arguments.model,
            base_url=url,
            key_variable=variable,
            temperature=None if arguments.temperature < 0 else arguments.temperature,
            top_p=arguments.top_p,
            seed=arguments.judge_seed,
            max_tokens=arguments.max_tokens,
            token_limit="max_completion_tokens" if arguments.completion_tokens else "max_tokens",
            concurrency=arguments.concurrency,
            timeout=arguments.timeout,
            usd_per_million=None if prices is None else (prices[0], prices[1]),
        )
    )


def _add_chat(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("chat", help="talk to a model and watch its canvas resolve")
    parser.add_argument("model", help="model folder or hub id")
    parser.add_argument("--adapter", help="LoRA adapter folder or hub id")
    parser.add_argument(
        "--canvas-length", type=int, default=128, help="positions (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, help="denoising steps (default: one per position)")
    parser.add_argument(
        "--block-length", type=int, help="positions per block (default: the canvas)"
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=_chat)


def _chat(arguments: argparse.Namespace) -> None:
    from slackdlm.chat import ChatSettings, Conversation, chat
    from slackdlm.models.loading import load_model
    from slackdlm.sampling.sampler import SamplerConfig

    settings = ChatSettings(
        SamplerConfig(
            canvas_length=arguments.canvas_length,
            steps=arguments.steps,
            block_length=arguments.block_length,
            temperature=arguments.temperature,
            seed=arguments.seed,
        )
    )
    loaded = load_model(arguments.model, adapter=arguments.adapter)
    console = Console()
    with suppress(ImportError):
        import_module("readline")  # lines can be edited and recalled
    chat(Conversation(loaded, settings), console, lambda: console.input("[bold]> [/bold]"))


def _add_compare(commands: "_Commands[argparse.ArgumentParser]") -> None:
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
        help="length, headers, lists, bold; without a name: all",
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
    from slackdlm.evaluation.answer_files import read_answer_file, style_of
    from slackdlm.evaluation.compare import compare
    from slackdlm.evaluation.comparison import Settings
    from slackdlm.evaluation.judgment_files import read_judgment_file
    from slackdlm.evaluation.statistics.style_control import COVARIATES
    from slackdlm.report.comparison import cells, power_table, rich_tables, write_comparison

    console = Console()
    num_questions, spread = arguments.questions, arguments.spread
    if num_questions is not None or spread is not None:
        if not arguments.power or arguments.judgments or num_questions is None or spread is None:
            raise ConfigError(
                "--questions and --spread plan a study: give both, with --power and without files"
            )
        console.print(power_table([("planned", num_questions, spread)], alpha=arguments.alpha))
        return
    if not arguments.judgments:
        raise ConfigError("compare: give judgment files, or --power --questions N --spread S")
    wanted = arguments.style_control
    if wanted is not None and not arguments.answers:
        raise ConfigError("--style-control: the answers are needed too; give --answers FILE ...")
    settings = Settings(
        adjustment=arguments.adjust,
        alpha=arguments.alpha,
        num_resamples=arguments.resamples,
        seed=arguments.seed,
        covariates=() if wanted is None else tuple(wanted) or COVARIATES,
    )
    style = None
    if arguments.answers:
        style = style_of([a for file in arguments.answers for a in read_answer_file(file)])
    found = compare(
        [judgment for file in arguments.judgments for judgment in read_judgment_file(file)],
        settings=settings,
        style=None if style is None else style.metadata,
        lengths=None if style is None else style.lengths,
    )
    for warning in found.warnings:
        console.print(Text("warning: ", style="bold yellow") + printable(warning))
    for table in rich_tables(found):
        console.print(table)
    if arguments.power:
        told = [(cells(line).what, line.estimate.num_scored, line.spread) for line in found.lines]
        console.print(power_table(told, alpha=settings.alpha))
    if arguments.output is not None:
        console.print(Text(f"report: {write_comparison(found, arguments.output)}"))


def _add_surface_form(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "surface-form", help="count the answers that a collapse map changes, and what it takes"
    )
    parser.add_argument(
        "files", type=Path, nargs="+", help="JSONL of gold answers, or answers.jsonl of a model"
    )
    parser.add_argument(
        "--column", default="answer", help="column of the gold answer (default: %(default)s)"
    )
    parser.add_argument(
        "--tokenizer", help="model folder or hub id; default: byte-level BPE trained on the answers"
    )
    parser.add_argument(
        "--slack-ratio", type=float, nargs=2, default=(0.0, 0.5), metavar=("LOW", "HIGH")
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSONL of every answer, for a model's answers")
    parser.set_defaults(run=_surface_form)


def _surface_form(arguments: argparse.Namespace) -> None:
    from slackdlm.evaluation.surface_form import gold_texts, has_canvases
    from slackdlm.studies.surface_form import answers_tokenizer, survey

    with_canvases = [has_canvases(file) for file in arguments.files]
    if any(with_canvases):
        if not all(with_canvases):
            raise ConfigError("surface-form: give gold answers or a model's answers, not both")
        _surface_of_answers(arguments)
        return
    answers = [
        text for file in arguments.files for text in gold_texts(file, column=arguments.column)
    ]
    low, high = arguments.slack_ratio
    if not 0 <= low <= high < 1000:
        raise ConfigError(f"--slack-ratio: expected 0 <= LOW <= HIGH < 1000, got {low} {high}")
    tokenizer, slack_id = answers_tokenizer(answers, arguments.tokenizer)
    table = Table(
        title=f"{len(answers)} answers: canvas, fill with the true path, collapse",
        title_justify="left",
    )
    for heading in ("collapse", "answers changed", "final values changed", "examples", "dropped"):
        table.add_column(heading)
    for mode in ("slack", "graves"):
        found = survey(
            answers, tokenizer, slack_id=slack_id, mode=mode, slack_ratio=(low, high), seed=arguments.seed
        )  # fmt: skip
        examples = ", ".join(f"{before} -> {after}" for before, after in found.examples)
        table.add_row(
            mode,
            f"{found.num_changed} / {found.num_answers}",
            f"{found.num_finals_changed} / {found.num_finals}",
            printable(examples),
            _kinds(found.dropped),
        )
    Console().print(table)


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
    table = Table(title=f"{len(found)} answered turns", title_justify="left")
    for heading in ("system", "collapse", "changed", "merging would change", "merging would drop"):
        table.add_column(heading, overflow="fold")
    for system, mode in dict.fromkeys((one.system, one.collapse) for one in found):
        own = [one for one in found if (one.system, one.collapse) == (system, mode)]
        dropped: Counter[str] = Counter()
        for one in own:
            dropped.update(dict(one.dropped))
        table.add_row(
            printable(system),
            printable(mode),
            f"{sum(one.is_changed for one in own)} / {len(own)}",
            f"{sum(one.would_change for one in own)} / {len(own)}",
            _kinds(dropped),
        )
    Console().print(table)
    if arguments.output is not None:
        write_rows(arguments.output, (one._asdict() for one in found))


def _kinds(dropped: Mapping[Any, int]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in dropped.items()) or "nothing"


def _add_report(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("report", help="draw plots and HTML again from a results.json")
    parser.add_argument("results", type=Path, help="results.json")
    parser.add_argument("--output", type=Path, help="folder (default: beside the file)")
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from slackdlm.report.page import write_report

    try:
        results = json.loads(arguments.results.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{arguments.results}: not a readable results.json ({error})") from error
    if not isinstance(results, dict):
        raise ConfigError(
            f"{arguments.results}: expected a results.json, which is an object; "
            f"got a {type(results).__name__}"
        )
    report = write_report(results, arguments.output or arguments.results.parent)
    Console().print(Text(f"report: {report}"))


def _add_bench(commands: "_Commands[argparse.ArgumentParser]") -> None:
    bench = commands.add_parser("bench", help="time and memory on this machine")
    subjects = bench.add_subparsers(title="subjects", required=True, metavar="SUBJECT")
    decode = subjects.add_parser("decode", help="decoding, against LLaDA's algorithm as published")
    parser = subjects.add_parser("loss", help="the losses")
    for each, name, repeats in ((parser, "loss", 5), (decode, "decode", 3)):
        file = Path(f"{name}_bench.csv")
        each.add_argument("--output", type=Path, default=file, help="CSV file")
        each.add_argument("--repeats", type=int, default=repeats, help="timed runs, at least 2")
        each.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    for flag, what in (
        ("--prompt-length", "prompt tokens"),
        ("--canvas-length", "canvas positions L"),
        ("--block-length", "positions per block"),
        ("--hidden-size", "hidden size D"),
        ("--num-layers", "layers"),
        ("--vocab-size", "vocabulary V"),
    ):
        decode.add_argument(flag, type=int, help=what)
    decode.set_defaults(run=_bench_decode)
    for flag, default, what in (
        ("--batch", 1, "samples B"),
        ("--positions", 1024, "canvas positions L"),
        ("--slack", 64, "slack budget K"),
        ("--hidden", 256, "hidden size D"),
        ("--vocabulary", 126464, "vocabulary V"),
    ):
        parser.add_argument(flag, type=int, default=default, help=f"{what} (default: {default})")
    parser.set_defaults(run=_bench_loss)


def _bench_decode(arguments: argparse.Namespace) -> None:
    from slackdlm.sampling.bench import Size, bench_decode, write_rows

    names = [field.name for field in fields(Size)]
    given = {name: value for name, value in vars(arguments).items() if name in names}
    size = replace(Size(), **{name: value for name, value in given.items() if value is not None})
    console = Console()
    with console.status("measuring; at V = 126,464 this takes minutes"):
        rows = list(bench_decode(size, repeats=arguments.repeats, device=arguments.device))
    write_rows(rows, arguments.output)
    table = Table(title=f"{size}", title_justify="left")
    for heading in ("algorithm", "p20 ms", "p50 ms", "p80 ms", "tokens/s", "forwards/token", "MiB"):
        words = heading == "algorithm"
        table.add_column(heading, justify="left" if words else "right", no_wrap=words)
    for row in rows:
        figures = (row.p20_ms, row.p50_ms, row.p80_ms, row.tokens_per_second)
        shown = [f"{figure:.1f}" for figure in figures]
        extra = "–" if row.peak_extra_mib is None else f"{row.peak_extra_mib:.1f}"
        table.add_row(row.provider, *shown, f"{row.forwards_per_token:.3f}", extra)
    console.print(table)
    console.print(Text(f"written to {arguments.output}"))


def _bench_loss(arguments: argparse.Namespace) -> None:
    from slackdlm.objectives.bench import Size, bench_loss, write_rows

    size = Size(
        num_samples=arguments.batch,
        num_positions=arguments.positions,
        num_slack=arguments.slack,
        hidden_size=arguments.hidden,
        vocab_size=arguments.vocabulary,
    )
    console = Console()
    with console.status("measuring; at V = 126,464 this takes minutes"):
        rows = list(bench_loss(size, repeats=arguments.repeats, device=arguments.device))
    write_rows(rows, arguments.output)
    table = Table(title=f"{size}", title_justify="left")
    for heading in ("loss", "mode", "p20 ms", "p50 ms", "p80 ms", "CPU p50 ms", "extra MiB"):
        words = heading in ("loss", "mode")
        table.add_column(heading, justify="left" if words else "right", no_wrap=words)
    for row in rows:
        figures = (row.p20_ms, row.p50_ms, row.p80_ms, row.cpu_p50_ms, row.peak_extra_mib)
        shown = ("–" if figure is None else f"{figure:.1f}" for figure in figures)
        table.add_row(row.provider, row.mode, *shown)
    console.print(table)
    console.print(Text(f"written to {arguments.output}"))


if __name__ == "__main__":
    sys.exit(main())
