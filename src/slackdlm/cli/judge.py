"""``slackdlm judge``: judge answers."""

import argparse
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from slackdlm.cli.commands import Commands
from slackdlm.cli.decoding import QUESTIONS_HELP
from slackdlm.cli.outputs import check_output_file, check_output_folder
from slackdlm.errors import ConfigError
from slackdlm.terminal import progress, table

if TYPE_CHECKING:
    from slackdlm.judging.budget import Budget
    from slackdlm.judging.files import JudgingFiles
    from slackdlm.judging.judges import Judge
    from slackdlm.judging.run import Judged


def add_judge(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "judge",
        help="judge answers: every pair in both orders, or every answer by itself",
        description="Run it again to finish what is missing; what is judged is never asked again.",
    )
    add = parser.add_argument
    add("--benchmark", required=True, help="protocol: arena-hard, mt-bench, wildbench, pairs, ...")
    add("--questions", required=True, help=QUESTIONS_HELP)
    add("--references", type=Path, help="MT-Bench's reference answers")
    add(
        "--judge-prompt",
        type=Path,
        metavar="FILE",
        help="Creative-Writing-Bench's creative_writing_judging_prompt.txt, its criteria files beside it",
    )
    add("--answers", type=Path, nargs="+", required=True, help="ours or the benchmark's format")
    add("--baseline", type=Path, help="answers of the system that they are compared to")
    add("--output", type=Path, required=True, help="judgments.jsonl")
    add("--journal", type=Path, help="folder; default: OUTPUT.journal; processes may share it")
    add_judge_choice(parser)
    parser.set_defaults(run=_judge)


def add_judge_choice(parser: argparse.ArgumentParser) -> None:
    """Which judge, and how much it may be asked."""
    add = parser.add_argument_group("judge").add_argument
    add(
        "--judge",
        choices=["openai", "local", "replay", "toy"],
        required=True,
        help="an endpoint, a model on this machine, recorded judgments, or the exact judge of the demo's toy language",
    )
    add("--judge-model", help="its name at the endpoint, a folder or a hub id")
    add("--recorded", type=Path, help="judgments that a replay repeats")
    add("--base-url", help="of any OpenAI-compatible endpoint (default: OpenAI's)")
    add("--key-variable", help="environment variable of the key (at OpenAI: OPENAI_API_KEY)")
    add("--judge-temperature", type=float, default=0.0, help="below 0: none is sent (default: 0)")
    add("--judge-top-p", type=float, help="sent if given")
    add("--judge-seed", type=int, help="sent if given")
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


def _judge(arguments: argparse.Namespace) -> None:
    from slackdlm.benchmarks.question_source import question_file
    from slackdlm.judging.budget import Budget
    from slackdlm.judging.files import JudgingFiles, check_missing, count_calls

    files = JudgingFiles(
        benchmark=arguments.benchmark,
        questions=question_file(arguments.questions),
        answers=arguments.answers,
        output=arguments.output,
        baseline=arguments.baseline,
        references=arguments.references,
        judge_prompt=arguments.judge_prompt,
        journal=arguments.journal,
    )
    given = [files.questions, files.references, files.judge_prompt, files.baseline, *files.answers]
    check_output_file("--output", files.output, *given)
    check_output_folder("--journal", files.journal_folder, *given, files.output)
    budget = Budget(arguments.max_calls, arguments.max_usd)
    console = Console()
    with closing(judge_of(arguments)) as judge:
        if arguments.dry_run:
            counted = count_calls(files, judge)
            console.print(
                f"{counted.num_calls} calls of {counted.num_judgments} judgments ({counted.num_done} done, "
                f"{counted.num_without_call} with nothing to ask), about {counted.prompt_tokens} prompt tokens, "
                f"cost {counted.cost}; what fails or brings no verdict is asked for again on top"
            )
            return
        judged = _judged(files, judge, budget)
    counts = judged.tally
    tokens = judged.prompt_tokens + judged.completion_tokens
    figures: dict[str, object] = {
        "judgments": counts.num_total,
        "scored": counts.num_scored,
        "failed": counts.num_failed,
        "no verdict": counts.num_unparsable,
        "off the scale": counts.num_out_of_range,
        "calls": judged.calls,
        "tokens": tokens,
        "USD": "–" if judged.usd is None else f"{judged.usd:.4f}",
    }
    title = f"{files.benchmark}, judge {judge.name}"
    row = [str(figure) for figure in figures.values()]
    console.print(table(title, list(figures), [row], width=console.width))
    console.print(Text(f"{judged.new_calls} new calls; judgments: {files.output}"))
    check_missing(judged, max_missing=arguments.max_missing)


def _judged(files: "JudgingFiles", judge: "Judge", budget: "Budget") -> "Judged":
    """Judge with a progress bar."""
    from slackdlm.judging.files import judge_files

    bars = progress("cost")
    bar = bars.add_task("judgments", total=None, cost="")

    def begin(total: int) -> None:
        bars.update(bar, total=total)
        bars.start()

    try:
        return judge_files(
            files,
            judge,
            budget=budget,
            on_plan=begin,
            on_judged=lambda count, usd: bars.update(
                bar, advance=count, cost="" if usd is None else f"{usd:.4f} USD"
            ),
        )
    finally:
        bars.stop()


def judge_of(arguments: argparse.Namespace) -> "Judge":
    """The judge that the flags name."""
    for flag in ("concurrency", "max_tokens", "timeout"):
        if not getattr(arguments, flag) > 0:
            raise ConfigError(
                f"--{flag.replace('_', '-')}: expected more than 0, got {getattr(arguments, flag):g}"
            )
    if not 0 <= arguments.max_missing <= 1:
        raise ConfigError(f"--max-missing: expected a share, got {arguments.max_missing:g}")
    if arguments.judge == "toy":
        from slackdlm.judging.judges import ExactJudge
        from slackdlm.study.toy_judge import compare

        return ExactJudge("toy-parser-1", compare)
    if arguments.judge == "replay":
        from slackdlm.benchmarks.judgment_files import read_judgment_file
        from slackdlm.judging.judges import ReplayJudge

        if arguments.recorded is None:
            raise ConfigError("--judge replay: give the recorded judgments with --recorded FILE")
        recorded = read_judgment_file(arguments.recorded)
        return ReplayJudge(arguments.judge_model or "recorded", recorded)
    if arguments.judge_model is None:
        raise ConfigError(f"--judge {arguments.judge}: give the judge's name with --judge-model")
    if arguments.judge == "local":
        from slackdlm.judging.local import LocalJudge

        return LocalJudge(
            arguments.judge_model,
            temperature=max(arguments.judge_temperature, 0.0),
            max_tokens=arguments.max_tokens,
            seed=arguments.judge_seed or 0,
        )
    from slackdlm.judging.endpoint import OPENAI_URL, EndpointConfig, EndpointJudge

    url = arguments.base_url or OPENAI_URL
    variable = arguments.key_variable or ("OPENAI_API_KEY" if url == OPENAI_URL else None)
    prices = arguments.usd_per_million
    return EndpointJudge(
        EndpointConfig(
            model=arguments.judge_model,
            base_url=url,
            key_variable=variable,
            temperature=None if arguments.judge_temperature < 0 else arguments.judge_temperature,
            top_p=arguments.judge_top_p,
            seed=arguments.judge_seed,
            max_tokens=arguments.max_tokens,
            token_limit="max_completion_tokens" if arguments.completion_tokens else "max_tokens",
            concurrency=arguments.concurrency,
            timeout=arguments.timeout,
            usd_per_million=None if prices is None else (prices[0], prices[1]),
        )
    )
