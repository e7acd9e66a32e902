"""The paper in miniature: train matched arms on a toy language, probe them, judge exactly, report honestly.

Every stage reads files and writes files below one folder; running the command again finishes what is missing.

    tasks/ -> seed-N/{base, ce, ce_slack, slack_ctc} -> answers/ -> judgments/ -> results.json -> report.html
"""

import json
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from slackdlm.atomic import write_json
from slackdlm.errors import ConfigError
from slackdlm.jsonl import write_rows
from slackdlm.judgments import write_judgments
from slackdlm.models.loading import load_model
from slackdlm.report.page import write_report
from slackdlm.study.demo_figures import quality_rows, source_figures, win_rate_rows
from slackdlm.study.demo_plan import BASE, DemoPlan, paper_arms, variants
from slackdlm.study.demo_result import replays, sample_answers, training_curve
from slackdlm.study.demo_runs import Run, decode_run, questions_of, train_run
from slackdlm.study.demo_scores import Scores, grade_arm
from slackdlm.study.findings import findings, warnings
from slackdlm.study.grid import Condition
from slackdlm.study.result import Arm as TriedArm
from slackdlm.study.result import Result
from slackdlm.study.result import Run as Provenance
from slackdlm.study.toy_language import Task, write_tasks
from slackdlm.study.workers import Job, num_lines, run_jobs
from slackdlm.training.provenance import environment


def run_demo(
    plan: DemoPlan,
    *,
    output: Path,
    num_seeds: int = 1,
    with_variants: bool = False,
    quick: bool = False,
    console: Console | None = None,
) -> Path:
    """Run or finish the demo.

    Args:
        plan: Its sizes.
        output: Folder for everything; an unfinished demo in it is continued.
        num_seeds: Training seeds; each has its own base and arms.
        with_variants: Also train and decode the variants of slack-CTC; their results and report go to
            ``variants`` below ``output``.
        quick: Whether the report must say that the figures mean nothing.
        console: Where progress is shown; ``None``: nowhere.

    Returns:
        The path of the HTML report. ``results.json`` and the plots lie beside it.

    Raises:
        ConfigError: If ``output`` holds a demo of another plan.
    """
    console = console or Console(quiet=True)
    results_folder = output / "variants" if with_variants else output
    results_folder.mkdir(parents=True, exist_ok=True)
    _same_plan(plan, output)
    questions = _write_tasks(plan, output / "tasks")
    arms = paper_arms(plan.slack_ratio, slack_region=plan.slack_region)
    arms += variants(plan) if with_variants else []
    bases = [Run(plan, output, BASE, seed) for seed in range(num_seeds)]
    runs = [Run(plan, output, arm, seed) for seed in range(num_seeds) for arm in arms]
    seconds = output / "seconds.json"
    for name, function, jobs in (
        ("train the base", train_run, _training_jobs(bases)),
        ("train the arms", train_run, _training_jobs(runs)),
        ("decode", decode_run, _decoding_jobs([*bases, *runs])),
    ):
        if jobs:
            with _stage(name, seconds, console):
                run_jobs(function, jobs, console=console)
    with _stage("judge, statistics, report", seconds, console, is_redone=True):
        every = [*bases, *runs]
        scores = _judged(every, results_folder / "judgments")
        result = _result(plan, every, questions, scores, num_seeds=num_seeds, quick=quick)
    took = {"seconds": json.loads(seconds.read_text(encoding="utf-8"))}
    result = result.model_copy(update={"run": result.run.model_copy(update=took)})
    write_json(results_folder / "results.json", result.content())
    return write_report(result, results_folder)


@contextmanager
def _stage(name: str, file: Path, console: Console, *, is_redone: bool = False) -> Generator[None]:
    """Announce a stage and note its seconds, cut off or not: added to earlier ones unless it starts afresh."""
    console.print(f"[bold]{name}[/bold]")
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        console.print(f"  {seconds:.0f} s", style="dim")
        recorded: dict[str, float] = json.loads(file.read_text("utf-8")) if file.exists() else {}
        earlier = 0.0 if is_redone else recorded.get(name, 0.0)
        write_json(file, recorded | {name: round(earlier + seconds, 1)})


def _same_plan(plan: DemoPlan, output: Path) -> None:
    file = output / "plan.json"
    wanted: dict[str, Any] = json.loads(json.dumps(asdict(plan)))
    if not file.exists():
        write_json(file, wanted)
    elif json.loads(file.read_text(encoding="utf-8")) != wanted:
        raise ConfigError(
            f"{output}: holds a demo of another plan; choose another --output or delete the folder"
        )


def _write_tasks(plan: DemoPlan, folder: Path) -> list[Task]:
    """Training dialogues as a JSONL file, and questions whose prompts do not occur there."""
    folder.mkdir(exist_ok=True)
    train = write_tasks(plan.num_train, seed=1)
    prompts = frozenset(task.prompt for task in train)
    questions = write_tasks(plan.num_questions, seed=2, unlike=prompts)
    dialogues = ({"prompt": task.prompt, "response": task.story} for task in train)
    write_rows(folder / "train.jsonl", dialogues)
    write_rows(folder / "questions.jsonl", ({"prompt": task.prompt} for task in questions))
    return questions


def _training_jobs(runs: Sequence[Run]) -> list[Job[Run]]:
    """The runs that are not finished."""
    return [
        Job(
            run.label,
            run,
            (run.plan.base if run.arm is BASE else run.plan.arm).steps,
            lambda run=run: num_lines(run.folder / "log.jsonl"),
        )
        for run in runs
        if not _is_finished(run)
    ]


def _is_finished(run: Run) -> bool:
    """Whether its record, which is written last, says so."""
    record = run.folder / "run.json"
    return record.exists() and json.loads(record.read_text("utf-8"))["status"] == "finished"


def _decoding_jobs(runs: Sequence[Run]) -> list[Job[Run]]:
    """The runs whose answers are not complete."""
    jobs: list[Job[Run]] = []
    for run in runs:
        answered = run.answered
        files = [answered.file(*decoding) for decoding in answered.grid.decodings()]
        if not all(file.exists() for file in files):
            done = partial(_num_there, files)
            jobs.append(Job(run.label, run, len(files), done))
    return jobs


def _num_there(files: Sequence[Path]) -> int:
    return sum(file.exists() for file in files)


def _judged(runs: Sequence[Run], folder: Path) -> Scores:
    """Every answer judged exactly; one file of grades an arm and training run."""
    questions = questions_of(runs[0].output)
    scores = Scores(num_questions=len(questions))
    folder.mkdir(exist_ok=True)
    for run in runs:
        grades = grade_arm(run.answered, questions)
        write_judgments(folder / f"{run.answered.name}.jsonl", grades)
        scores.add(run.answered, grades)
    return scores


def _result(
    plan: DemoPlan,
    runs: Sequence[Run],
    questions: Sequence[Task],
    scores: Scores,
    *,
    num_seeds: int,
    quick: bool,
) -> Result:
    """All of the result but its seconds; samples and replays are those of the first training seed."""
    rng = np.random.Generator(np.random.PCG64(0))
    quality = quality_rows(scores, canvas_length=plan.canvas_length, rng=rng)
    win_rates = win_rate_rows(scores, rng=rng)
    source = source_figures(questions, rng=rng)
    first = [run for run in runs if run.seed == 0]
    models = {run.arm.name: load_model(run.folder / "model") for run in first}
    sampler = replace(first[0].answered.grid.sampler, steps=plan.probed_steps[0])
    greedy = Condition(replace(sampler, temperature=0.0))
    return Result(
        title="slackdlm demo: positional supervision on a toy language",
        summary=findings(quality, win_rates, source, num_seeds=num_seeds),
        warnings=warnings(num_seeds=num_seeds, quick=quick),
        run=_provenance({"num_seeds": num_seeds, **asdict(plan)}),
        arms=[TriedArm.model_validate(run.arm) for run in first],
        quality=quality,
        source=source,
        win_rates=win_rates,
        samples=sample_answers(
            [run.answered for run in first], models[BASE.name].tokenizer, questions[:5], greedy
        ),
        replays=replays(models, questions[:1], sampler),
        training=[
            training_curve(run.folder / "log.jsonl", arm=run.arm.name, seed=run.seed)
            for run in runs
        ],
    )


def _provenance(config: dict[str, Any]) -> Provenance:
    facts = environment()
    versions, hardware, git = facts["versions"], facts["hardware"], facts["git"]
    devices = ", ".join(hardware["gpus"]) or f"{hardware['cpus']} CPU cores, no GPU used"
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        slackdlm=versions["slackdlm"],
        python=versions["python"],
        torch=versions["torch"],
        hardware=f"{devices}, {hardware['platform']}",
        git=None if git is None else git["commit"] + (" (changed)" if git["dirty"] else ""),
        config=config,
    )
