"""In what order should slack and ends be decoded? python benchmarks/decoding_order.py FOLDER [--demo runs/demo].

Trains base, CE, CE on slack canvases and slack-CTC in a setting easier than the demo's: prompts name the number of
sentences and two nouns, 0.8 M parameters, 3,000 steps of CE and 1,500 an arm, slack in the content, ratio up to 0.5.
Decodes the arms with slack, ends, both or neither delayed, cells of a step apart or not, and judges exactly. With
``--demo`` also CE and slack-CTC of a finished demo. Writes benchmarks/results/decoding_order.csv. An hour on 2 cores;
run again it finishes what is missing in FOLDER.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measurement import hardware, write_csv
from rich.console import Console

from slackdlm.models.loading import load_model
from slackdlm.sampling.sampler import Sampler, SamplerConfig
from slackdlm.statistics import average_over_seeds, mean_interval, over_training_runs
from slackdlm.study.demo_plan import BASE, DemoPlan, paper_arms
from slackdlm.study.demo_runs import Run, train_run
from slackdlm.study.toy_judge import judge
from slackdlm.study.toy_language import NOUNS, Task, write_story
from slackdlm.study.workers import Job, num_lines, run_jobs
from slackdlm.training.config import TrainingConfig


class Setting(NamedTuple):
    """How an order is decoded."""

    temperature: float
    steps: int


CONFIG = TrainingConfig(
    steps=3000, learning_rate=3e-3, warmup_steps=100, eval_every=500, save_every=500
)
PLAN = DemoPlan(
    num_questions=64,
    d_model=128,
    n_layers=4,
    mlp_hidden_size=344,
    base=CONFIG,
    arm=replace(CONFIG, steps=1500, warmup_steps=50),
    slack_ratio=(0.0, 0.5),
    slack_region="content",
    steps=(8, 16, 32),
    num_decoding_seeds=1,
)
SPACING = 4
ORDERS = {
    "plain": {},
    "ends last": {"delay_end": True},
    "slack last": {"delay_slack": True},
    "slack and ends last": {"delay_slack": True, "delay_end": True},
    "spaced": {"spacing": SPACING},
    "ends last, spaced": {"delay_end": True, "spacing": SPACING},
    "slack last, spaced": {"delay_slack": True, "spacing": SPACING},
    "slack and ends last, spaced": {"delay_slack": True, "delay_end": True, "spacing": SPACING},
}
WITH_SLACK = ("ce_slack", "slack_ctc")
SAME = {
    "slack last": "plain",
    "slack and ends last": "ends last",
    "slack last, spaced": "spaced",
    "slack and ends last, spaced": "ends last, spaced",
}
"""What an order is for arms that know no slack: delaying it changes nothing for them."""
UNSPACED = {
    order: "plain" if order == "spaced" else order.removesuffix(", spaced") for order in ORDERS
}
METRICS = ("quality", "grammatical", "coverage", "words", "too_long", "slack_share")


class Decoding(NamedTuple):
    """One trained arm, and where its answers go."""

    setting: str
    plan: DemoPlan
    model: Path
    tasks: Path
    answers: Path
    arm: str
    seed: int

    @property
    def runs(self) -> list[tuple[str, Setting, int]]:
        """Order, condition and decoding seed of each run; cells are spaced only where steps are few and slack waits."""
        knows_slack = self.arm in WITH_SLACK
        return [
            (order, Setting(temperature, steps), seed)
            for order in ORDERS
            if (
                order not in SAME.values() or "spaced" not in order
                if knows_slack
                else order not in SAME
            )
            for temperature in self.plan.temperatures
            for steps in self.plan.steps
            if "spaced" not in order or steps < max(self.plan.steps)
            for seed in range(self.plan.num_decoding_seeds if temperature > 0 else 1)
        ]


def write_tasks(folder: Path, *, num_nouns: int) -> None:
    """Stories of the demo's language whose prompts name the number of sentences and the first nouns.

    The questions are distinct as far as there are prompts; the training stories use the same prompts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed, most in (("train", 1, PLAN.num_train), ("questions", 2, PLAN.num_questions)):
        rng = np.random.Generator(np.random.PCG64(seed))
        tasks: list[Task] = []
        for _ in range(PLAN.num_train):
            story = write_story(rng)
            words = [word for sentence in story for word in sentence]
            nouns = list(dict.fromkeys(word for word in words if word in NOUNS))[:num_nouns]
            count = {2: "twice", 3: "thrice", 4: "fourfold"}[len(story)]
            tasks.append(Task(" ".join(["tell", count, *nouns]), " ".join(words)))
        if name == "questions":
            tasks = list({task.prompt: task for task in tasks}.values())
        rows = [json.dumps({"prompt": t.prompt, "response": t.story}) + "\n" for t in tasks[:most]]
        (folder / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")


def decode_arm(job: Decoding) -> None:
    """Answer every question in every order; whole or not at all."""
    loaded = load_model(job.model)
    lines = job.tasks.read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(line)["prompt"] for line in lines]
    part = job.answers.with_suffix(".part")
    with part.open("w", encoding="utf-8") as stream:
        for order, condition, seed in job.runs:
            config = SamplerConfig(
                canvas_length=job.plan.canvas_length,
                steps=condition.steps,
                temperature=condition.temperature,
                seed=seed,
                batch_size=64,
                **ORDERS[order],
            )
            answers = Sampler(loaded, config).generate(prompts)
            for question, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
                row = {"question": question, "prompt": prompt, **condition._asdict()}
                row |= {"kind": "none", "rate": 0.0, "decoding_seed": seed, "text": answer.text}
                row |= {"tokens": answer.tokens, "canvas": answer.canvas}
                row |= {"setting": job.setting, "arm": job.arm, "order": order}
                stream.write(json.dumps(row | {"training_seed": job.seed}) + "\n")
            stream.flush()
    part.replace(job.answers)


def scores(jobs: Sequence[Decoding]) -> dict[tuple[Any, ...], dict[str, np.ndarray]]:
    """Arrays ``[training run, question]`` per cell and metric, averaged over decoding seeds."""
    rows: dict[tuple[Any, ...], dict[str, dict[tuple[int, int, int], float]]] = {}
    for job in jobs:
        for line in job.answers.read_text(encoding="utf-8").splitlines():
            answer = json.loads(line)
            verdict = judge(answer["prompt"], answer["text"])._asdict() | answer
            cell = tuple(answer[key] for key in ("setting", "temperature", "steps", "arm", "order"))
            place = (answer["training_seed"], answer["decoding_seed"], answer["question"])
            for metric in METRICS:
                value = np.nan if verdict[metric] is None else verdict[metric]
                rows.setdefault(cell, {}).setdefault(metric, {})[place] = value
    found: dict[tuple[Any, ...], dict[str, np.ndarray]] = {}
    for cell, metrics in rows.items():
        for metric, values in metrics.items():
            table = np.full(1 + np.max(list(values), axis=0), np.nan)
            for place, value in values.items():
                table[place] = value
            found.setdefault(cell, {})[metric] = np.stack([average_over_seeds(t) for t in table])
    return found


def summary(jobs: Sequence[Decoding]) -> list[dict[str, Any]]:
    """One row per cell: means, intervals over questions (they speak about these models), and paired differences.

    ``minus_ce``: to matched CE in the same order, delayed slack apart, which it has none of; ``minus_plain``: to the
    same models in the plain order; ``minus_unspaced``: to the same order with cells anywhere.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    table = scores(jobs)
    rows: list[dict[str, Any]] = []
    for cell, found in table.items():
        setting, temperature, steps, arm, order = cell
        row = dict(
            zip(("setting", "temperature", "steps", "arm", "order"), cell, strict=True)
        )  # fmt: skip
        for metric in METRICS:
            runs = over_training_runs(found[metric], rng=rng)
            row[metric] = rounded(runs.these_runs.value)
            if metric in ("quality", "grammatical"):
                row[f"{metric}_low"] = rounded(runs.these_runs.low)
                row[f"{metric}_high"] = rounded(runs.these_runs.high)
                row[f"{metric}_per_training_seed"] = " ".join(f"{m:.3f}" for m in runs.per_run)
        where = (setting, temperature, steps)
        rivals = {
            "minus_ce": (*where, "ce", SAME.get(order, order)),
            "minus_plain": (*where, arm, "plain"),
            "minus_unspaced": (*where, arm, UNSPACED[order]),
        }
        for name, other in rivals.items():
            paired = average_over_seeds(found["quality"] - table[other]["quality"])
            difference = mean_interval(paired, rng=rng)
            for end in ("value", "low", "high"):
                value = None if other == cell else rounded(getattr(difference, end))
                row[f"quality_{name}" + ("" if end == "value" else f"_{end}")] = value
        row["num_questions"] = found["quality"].shape[1]
        row["num_training_seeds"] = found["quality"].shape[0]
        rows.append(row)
    return rows


def rounded(value: float | None) -> float | None:
    """To four digits; missing stays missing."""
    return None if value is None else round(float(value), 4)


def trained(folder: Path, *, num_seeds: int, num_nouns: int) -> list[Decoding]:
    """Train what is missing; the decodings of the arms."""
    write_tasks(folder / "tasks", num_nouns=num_nouns)
    arms = paper_arms(PLAN.slack_ratio, slack_region=PLAN.slack_region)
    bases = [Run(PLAN, folder, BASE, seed) for seed in range(num_seeds)]
    runs = [Run(PLAN, folder, arm, seed) for seed in range(num_seeds) for arm in arms]
    for stage in (bases, runs):
        jobs = [
            Job(
                run.label,
                run,
                (PLAN.base if run.arm is BASE else PLAN.arm).steps,
                lambda run=run: num_lines(run.folder / "log.jsonl"),
            )
            for run in stage
            if not is_finished(run)
        ]
        if jobs:
            run_jobs(train_run, jobs, console=Console(stderr=True))
    setting = f"count and {num_nouns} nouns"
    return [
        Decoding(
            setting,
            PLAN,
            run.folder / "model",
            folder / "tasks" / "questions.jsonl",
            folder / "answers" / f"{run.answered.name}.jsonl",
            run.arm.name,
            run.seed,
        )
        for run in runs
    ]


def is_finished(run: Run) -> bool:
    """Whether its record, which is written last, says so."""
    record = run.folder / "run.json"
    return record.exists() and json.loads(record.read_text("utf-8"))["status"] == "finished"


def of_demo(demo: Path, folder: Path) -> list[Decoding]:
    """CE and slack-CTC of a finished demo, on its canvas, questions, temperatures and steps."""
    plan = json.loads((demo / "plan.json").read_text(encoding="utf-8"))
    known = {key: tuple(plan[key]) for key in ("temperatures", "steps")}
    own = replace(PLAN, canvas_length=plan["canvas_length"], **known)
    return [
        Decoding(
            "demo",
            own,
            model,
            demo / "tasks" / "questions.jsonl",
            folder / "answers" / f"demo-{model.parts[-3]}-{model.parts[-2]}.jsonl",
            model.parts[-2],
            int(model.parts[-3].removeprefix("seed-")),
        )
        for model in sorted(demo.glob("seed-*/*/model"))
        if model.parts[-2] in ("ce", "slack_ctc")
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="models and answers; continued if there are any")
    parser.add_argument("--seeds", type=int, default=2, help="training seeds")
    parser.add_argument("--nouns", type=int, default=2, help="nouns a prompt names; 0: count alone")
    parser.add_argument("--demo", type=Path, help="folder of a finished demo")
    arguments = parser.parse_args()
    jobs = trained(arguments.folder, num_seeds=arguments.seeds, num_nouns=arguments.nouns)
    if arguments.demo is not None:
        jobs += of_demo(arguments.demo, arguments.folder)
    for job in jobs:
        job.answers.parent.mkdir(parents=True, exist_ok=True)
    open_jobs = [
        Job(
            f"{job.setting}: {job.arm}, seed {job.seed}",
            job,
            len(job.runs) * num_lines(job.tasks),
            lambda job=job: num_lines(job.answers.with_suffix(".part")),
        )
        for job in jobs
        if not job.answers.exists()
    ]
    if open_jobs:
        run_jobs(decode_arm, open_jobs, console=Console(stderr=True))
    machine = {
        "hardware": hardware("cpu"),
        "slackdlm_version": version("slackdlm"),
        "torch_version": torch.__version__,
    }
    rows = [row | machine for row in summary(jobs)]
    path = Path(__file__).parent / "results" / "decoding_order.csv"
    write_csv(path, rows)
    print("written to", path)
