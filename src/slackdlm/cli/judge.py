"""``slackdlm judge``: judge answers."""

import argparse
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from slackdlm.cli.checks import check_output_file, check_output_folder
from slackdlm.cli.decoding import QUESTIONS_HELP, chosen_device
from slackdlm.cli.flags import Commands, add_set, add_settings
from slackdlm.judging.config import JudgeConfig, load_judge
from slackdlm.terminal import progress, table

if TYPE_CHECKING:
    from slackdlm.judging.budget import Budget
    from slackdlm.judging.judges import Judge
    from slackdlm.judging.plan import Plan
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
    add_set(add, "judge.temperature=1")
    add_judge_choice(parser)
    parser.set_defaults(run=_judge)


def add_judge_choice(parser: argparse.ArgumentParser) -> None:
    """Which judge, and how much it may be asked."""
    add = parser.add_argument_group("judge").add_argument
    add(
        "--judge",
        required=True,
        metavar="KIND|YAML",
        help="openai (an OpenAI-compatible endpoint), local (a model on this machine), replay (recorded judgments), "
        "toy (the exact judge of the demo's language), or a file such as recipes/judge-openai.yaml",
    )
    add_settings(add, "judge", JudgeConfig, ["model"], prefix="judge-")
    daily = ("base_url", "key_variable", "recorded", "max_calls", "max_usd", "max_missing")
    add_settings(add, "judge", JudgeConfig, daily)
    add("--dry-run", action="store_true", help="count calls and tokens, ask nothing")


def _judge(arguments: argparse.Namespace) -> None:
    from slackdlm.benchmarks.question_source import question_file
    from slackdlm.judging.budget import Budget
    from slackdlm.judging.files import JudgingFiles, plan_files
    from slackdlm.judging.plan import dry_run
    from slackdlm.judging.run import check_missing
    from slackdlm.judgments import write_judgments

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
    config = load_judge(arguments.judge, arguments.set)
    budget = Budget(config.max_calls, config.max_usd)
    console = Console()
    with closing(judge_of(config)) as judge:
        plan = plan_files(files, judge)
        if arguments.dry_run:
            counted = dry_run(plan, journal=files.journal_folder)
            console.print(
                f"{counted.num_calls} calls of {counted.num_judgments} judgments ({counted.num_done} done, "
                f"{counted.num_without_call} with nothing to ask), about {counted.prompt_tokens} prompt tokens, "
                f"cost {counted.cost}; what fails or brings no verdict is asked for again on top"
            )
            return
        judged = _judged(plan, files.journal_folder, budget)
    write_judgments(files.output, judged.judgments)
    counts = judged.tally
    total = judged.total
    figures: dict[str, object] = {
        "judgments": counts.num_total,
        "scored": counts.num_scored,
        "failed": counts.num_failed,
        "no verdict": counts.num_unparsable,
        "off the scale": counts.num_out_of_range,
        "calls": total.calls,
        "tokens": total.prompt_tokens + total.completion_tokens,
        "USD": "–" if total.usd is None else f"{total.usd:.4f}",
    }
    title = f"{files.benchmark}, judge {judge.name}"
    row = [str(figure) for figure in figures.values()]
    console.print(table(title, list(figures), [row], width=console.width))
    console.print(Text(f"{judged.new.calls} new calls; judgments: {files.output}"))
    check_missing(judged, max_missing=config.max_missing)


def _judged(plan: "Plan", journal: Path, budget: "Budget") -> "Judged":
    """Judge with a progress bar."""
    from slackdlm.judging.run import judge_answers

    with progress("cost") as bars:
        bar = bars.add_task("judgments", total=len(plan.items), cost="")
        return judge_answers(
            plan,
            journal=journal,
            budget=budget,
            on_judged=lambda count, usd: bars.update(
                bar, advance=count, cost="" if usd is None else f"{usd:.4f} USD"
            ),
        )


def judge_of(config: JudgeConfig) -> "Judge":
    """The judge that the settings name."""
    if config.kind == "toy":
        from slackdlm.judging.judges import ExactJudge
        from slackdlm.study.toy_judge import compare

        return ExactJudge("toy-parser-1", compare)
    if config.kind == "replay":
        from slackdlm.benchmarks.judgment_files import read_judgment_file
        from slackdlm.judging.judges import ReplayJudge

        return ReplayJudge(
            config.model or "recorded", read_judgment_file(Path(str(config.recorded)))
        )
    if config.kind == "local":
        from slackdlm.judging.local import LocalJudge

        return LocalJudge(
            str(config.model),
            temperature=config.temperature or 0.0,
            max_tokens=config.max_tokens,
            seed=config.seed or 0,
            device=chosen_device(config.device) or "cpu",
        )
    from slackdlm.judging.endpoint import EndpointJudge

    return EndpointJudge(config)
