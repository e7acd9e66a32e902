"""The paper in miniature: train matched arms on a toy language, probe them, judge exactly, report honestly.

Every stage reads files and writes files below one folder; running the command again finishes what is missing.

    tasks/ -> seed-N/{base, ce, ce_slack, slack_ctc} -> answers/ -> judgments.jsonl -> results.json -> report.html
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from slackdlm.errors import ConfigError
from slackdlm.models.llada_config import LLaDAConfig
from slackdlm.models.loading import LoadedModel, load_model, new_model
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.report.page import write_report
from slackdlm.studies import demo_results, shift_sensitivity
from slackdlm.studies.demo_findings import findings, warnings
from slackdlm.studies.demo_plan import BASE, DemoPlan, variants
from slackdlm.studies.demo_replay import replays, samples_shown
from slackdlm.studies.objective_comparison import Arm, paper_arms, train_or_load
from slackdlm.studies.shift_sensitivity import Condition
from slackdlm.studies.toy_language import Task, vocabulary, write_tasks
from slackdlm.training.data import Sample, encode_samples, read_dialogues
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
    output.mkdir(parents=True, exist_ok=True)
    _same_plan(plan, output)
    results_folder = output / "variants" if with_variants else output
    results_folder.mkdir(exist_ok=True)
    clock = _Clock(console, output / "seconds.json")
    with clock.stage("tasks"):
        train_file, questions = _write_tasks(plan, output / "tasks")
    arms = paper_arms(plan.slack_ratio)
    if with_variants:
        arms += variants(plan.slack_ratio)
    answer_files: list[Path] = []
    for seed in range(num_seeds):
        with clock.stage(f"train, seed {seed}"):
            models = _train(
                plan, arms, train_file, output / f"seed-{seed}", seed=seed, console=console
            )
        with clock.stage(f"decode, seed {seed}"):
            answer_files += _answer(
                plan, models, questions, output / "answers", seed=seed, console=console
            )
    with clock.stage("judge"):
        judgments = results_folder / "judgments.jsonl"
        demo_results.judge_answers(answer_files, judgments)
    with clock.stage("statistics"):
        results = _results(
            plan, [BASE, *arms], questions, judgments, num_seeds=num_seeds, quick=quick
        )
    models = {
        arm.name: load_model(str(output / "seed-0" / arm.name / "model")) for arm in [BASE, *arms]
    }
    prompts = [task.prompt for task in questions]
    results["replays"] = replays(
        models, prompts[:1], plan.probed_steps[0], canvas_length=plan.canvas_length
    )
    results["samples"] = samples_shown(
        judgments, questions, num_questions=5, steps=plan.probed_steps[0]
    )
    results["training"] = _curves([BASE, *arms], output, num_seeds=num_seeds)
    results["run"]["seconds"] = clock.seconds
    results_file = results_folder / "results.json"
    results_file.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return write_report(results, results_folder)


class _Clock:
    """Prints how long each stage took, and adds it up over the calls that finished a demo."""

    def __init__(self, console: Console, file: Path) -> None:
        self.console = console
        self.file = file
        self.seconds: dict[str, float] = {}
        if file.exists():
            self.seconds = json.loads(file.read_text(encoding="utf-8"))

    def stage(self, name: str) -> "_Stage":
        return _Stage(self, name)


class _Stage:
    def __init__(self, clock: _Clock, name: str) -> None:
        self.clock = clock
        self.name = name

    def __enter__(self) -> None:
        self.clock.console.print(f"[bold]{self.name}[/bold]")
        self.started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self.started
        total = self.clock.seconds.get(self.name, 0.0) + seconds
        self.clock.seconds[self.name] = round(total, 1)
        self.clock.file.write_text(json.dumps(self.clock.seconds), encoding="utf-8")
        self.clock.console.print(f"  {seconds:.0f} s", style="dim")


def _same_plan(plan: DemoPlan, output: Path) -> None:
    file = output / "plan.json"
    text = json.dumps(asdict(plan), indent=1) + "\n"
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise ConfigError(
            f"{output}: holds a demo of another plan; choose another --output or delete the folder"
        )
    file.write_text(text, encoding="utf-8")


def _write_tasks(plan: DemoPlan, folder: Path) -> tuple[Path, list[Task]]:
    """Training dialogues as a JSONL file, and questions whose prompts do not occur there."""
    folder.mkdir(exist_ok=True)
    train = write_tasks(plan.num_train, seed=1)
    questions = write_tasks(
        plan.num_questions, seed=2, unlike=frozenset(task.prompt for task in train)
    )
    for name, tasks in (("train", train), ("questions", questions)):
        lines = (
            json.dumps({"prompt": task.prompt, "response": task.story}) + "\n" for task in tasks
        )
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder / "train.jsonl", questions


def _new_base(plan: DemoPlan, *, seed: int) -> LoadedModel:
    tokenizer = train_tokenizer([" ".join(vocabulary())], vocab_size=256, kind="word")
    config = LLaDAConfig(
        vocab_size=len(tokenizer),
        d_model=plan.d_model,
        n_layers=plan.n_layers,
        n_heads=plan.n_heads,
        mlp_hidden_size=plan.mlp_hidden_size,
        max_sequence_length=plan.canvas_length + 32,
        weight_tying=True,
    )
    return new_model(config, tokenizer, generator_seed=seed)


def _train(
    plan: DemoPlan,
    arms: Sequence[Arm],
    train_file: Path,
    folder: Path,
    *,
    seed: int,
    console: Console,
) -> dict[str, LoadedModel]:
    new = _new_base(plan, seed=seed)
    dialogues = read_dialogues(train_file, prompt=None, response=None)
    encoded = encode_samples(
        dialogues,
        new.tokenizer,
        name="toy stories",
        max_prompt_length=32,
        canvas_length=plan.canvas_length,
    )
    held_out = plan.base.eval_samples
    samples: list[Sample] = encoded[held_out:]
    models: dict[str, LoadedModel] = {}
    for arm in [BASE, *arms]:
        console.print(f"  {arm.label}")
        # Another seed than the base's, so that no arm meets the base's masks again; the same one for every arm.
        training = replace(plan.base, seed=2 * seed, data_seed=2 * seed)
        if arm is not BASE:
            training = replace(plan.arm, seed=2 * seed + 1, data_seed=2 * seed + 1)
        models[arm.name] = train_or_load(
            new if arm is BASE else models[BASE.name],
            samples,
            encoded[:held_out],
            canvas_length=plan.canvas_length,
            objective=arm.objective,
            training=training,
            output=folder / arm.name,
            progress=not console.quiet,
        )
    return models


def _answer(
    plan: DemoPlan,
    models: dict[str, LoadedModel],
    questions: Sequence[Task],
    folder: Path,
    *,
    seed: int,
    console: Console,
) -> list[Path]:
    folder.mkdir(exist_ok=True)
    conditions = _conditions(plan)
    runs = shift_sensitivity.num_runs(conditions, num_seeds=plan.num_decoding_seeds)
    files: list[Path] = []
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("decoding", total=runs * len(models))
        advance: Callable[[], None] = lambda: progress.advance(bar)  # noqa: E731
        for name, loaded in models.items():
            file = folder / f"seed-{seed}-{name}.jsonl"
            files.append(file)
            if file.exists():
                progress.advance(bar, runs)
                continue
            shift_sensitivity.answer_grid(
                loaded,
                [task.prompt for task in questions],
                conditions,
                file,
                identity={"arm": name, "training_seed": seed},
                canvas_length=plan.canvas_length,
                num_seeds=plan.num_decoding_seeds,
                on_run=advance,
            )
    return files


def _conditions(plan: DemoPlan) -> list[Condition]:
    return shift_sensitivity.grid(
        temperatures=plan.temperatures,
        steps=plan.steps,
        rates=plan.rates,
        kinds=("shift", "substitute"),
        probed_steps=plan.probed_steps,
    )


def _results(
    plan: DemoPlan,
    arms: Sequence[Arm],
    questions: Sequence[Task],
    judgments: Path,
    *,
    num_seeds: int,
    quick: bool,
) -> dict[str, Any]:
    rng = np.random.Generator(np.random.PCG64(0))
    scores = demo_results.Scores(judgments, num_questions=plan.num_questions)
    quality = demo_results.quality_rows(scores, canvas_length=plan.canvas_length, rng=rng)
    win_rates = demo_results.win_rate_rows(scores, rng=rng)
    source = demo_results.source_row(questions, rng=rng)
    return {
        "title": "slackdlm demo: positional supervision on a toy language",
        "summary": findings(quality, win_rates, source, num_seeds=num_seeds),
        "warnings": warnings(num_seeds=num_seeds, quick=quick),
        "run": _provenance() | {"config": {"num_seeds": num_seeds, **asdict(plan)}},
        "arms": [{"name": a.name, "label": a.label, "description": a.description} for a in arms],
        "quality": quality,
        "source": source,
        "win_rates": win_rates,
    }


def _provenance() -> dict[str, Any]:
    found = environment()
    versions, hardware, git = found["versions"], found["hardware"], found["git"]
    devices = ", ".join(hardware["gpus"]) or f"{hardware['cpus']} CPU cores, no GPU used"
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "slackdlm": versions["slackdlm"],
        "python": versions["python"],
        "torch": versions["torch"],
        "hardware": f"{devices}, {hardware['torch_threads']} torch threads, {hardware['platform']}",
        "git": None if git is None else git["commit"] + (" (changed)" if git["dirty"] else ""),
    }


def _curves(arms: Sequence[Arm], output: Path, *, num_seeds: int) -> list[dict[str, Any]]:
    curves: list[dict[str, Any]] = []
    for seed in range(num_seeds):
        for arm in arms:
            log = output / f"seed-{seed}" / arm.name / "log.jsonl"
            rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
            curves.append({"arm": arm.name, "seed": seed, "points": _points(rows)})
    return curves


def _points(rows: Sequence[dict[str, Any]], *, every: int = 10) -> list[dict[str, Any]]:
    """Training loss averaged over ``every`` steps, evaluations where they were made."""
    points: dict[int, dict[str, Any]] = {}
    losses: list[float] = []
    for row in rows:
        if "loss" in row:
            losses.append(row["loss"])
        if "eval_ce" in row or len(losses) == every:
            point = points.setdefault(
                row["step"], {"step": row["step"], "eval_ce": None, "eval_objective": None}
            )
            if losses:
                point["loss"] = float(np.mean(losses))
                losses = []
            point |= {key: row[key] for key in ("eval_ce", "eval_objective") if key in row}
    return [point for point in points.values() if "loss" in point]
