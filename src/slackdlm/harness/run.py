"""What does a model score on lm-eval's tasks? lm-eval's ``evaluate`` with our errors, and its results as plain data."""

import math
import random
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import lm_eval
import numpy as np
import torch
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

from slackdlm.atomic import write_text
from slackdlm.errors import ConfigError, DataError
from slackdlm.harness.adapter import HarnessLM
from slackdlm.harness.tasks import Tasks
from slackdlm.jsonl import Row, dump


@dataclass(frozen=True)
class Score:
    """One metric of one task or group of tasks."""

    task: str
    metric: str
    filter: str
    """Which way of reading the answers; ``none`` if there is but one."""
    value: float | None
    """``None`` where lm-eval gives none."""
    stderr: float | None
    """lm-eval's standard error over questions; ``None`` where it gives none."""
    num_questions: int
    num_total: int | None
    """Questions of the task without a limit; ``None`` for groups."""
    num_fewshot: int | None
    """Examples in the prompt; ``None`` for groups."""


@dataclass(frozen=True)
class HarnessResult:
    """Scores and everything that decided them."""

    scores: tuple[Score, ...]
    document: Row
    """The content of ``results.json``."""


def run_harness(
    lm: HarnessLM,
    tasks: Tasks,
    *,
    num_fewshot: int | None = None,
    limit: int | None = None,
    chat: bool = False,
    system: str | None = None,
) -> HarnessResult:
    """Evaluate a model on tasks.

    Args:
        lm: The model.
        tasks: What to evaluate it on.
        num_fewshot: Examples in the prompt; the tasks' own numbers if not given. Tasks that fix it at 0 keep 0.
        limit: Only the first so many questions of each task.
        chat: Whether prompts are conversations in the model's format, examples being earlier turns.
        system: System message before them; needs ``chat``.

    Raises:
        ConfigError: If a setting is wrong.
        DataError: If a task's data cannot be had, or a request does not fit the model.
    """
    check_settings(num_fewshot=num_fewshot, limit=limit, chat=chat, system=system)
    _seed_tasks()
    loaded = tasks.load(tasks.names)
    for task in loaded["tasks"].values():
        default = task.get_config("num_fewshot")
        if default is None or (num_fewshot is not None and default != 0):
            task.set_config(key="num_fewshot", value=num_fewshot or 0)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    # As simple_evaluate does, which also asks git and pip about the machine, in seconds and with their complaints.
    evaluate: Any = lm_eval.evaluate  # its decorator loses the parameters
    evaluated = evaluate(
        lm=lm,
        task_dict=loaded,
        limit=limit,
        system_instruction=system,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        confirm_run_unsafe_code=tasks.run_model_code,
        log_samples=True,
    )
    if evaluated is None:
        raise ConfigError("harness: run it in one process; this one is not the first of its group")
    results = cast("Row", evaluated)
    run = {"chat": chat, "system": system, "limit": limit, "num_fewshot": num_fewshot}
    return HarnessResult(_scores(results), _document(lm, results, run))


def _seed_tasks() -> None:
    """Seed the global generators, which tasks such as GPQA shuffle with, as lm-eval does."""
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)  # noqa: NPY002
    torch.manual_seed(DEFAULT_OTHER_SEED)


def check_settings(
    *, num_fewshot: int | None, limit: int | None, chat: bool, system: str | None
) -> None:
    """Raise ConfigError unless a run can have these settings."""
    if num_fewshot is not None and num_fewshot < 0:
        raise ConfigError(f"--num-fewshot: expected at least 0, got {num_fewshot}")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit: expected at least 1 question, got {limit}")
    if system is not None and not chat:
        raise ConfigError("--system: a system message needs --chat")


def write_results(path: Path, result: HarnessResult) -> None:
    """Write ``results.json``; the file is replaced only when all of it is there."""
    write_text(path, dump(result.document, indent=1) + "\n")


def _scores(results: Row) -> tuple[Score, ...]:
    """Tasks in lm-eval's order, then groups."""
    scores: list[Score] = []
    counts, fewshot = results.get("n-samples", {}), results.get("n-shot", {})
    groups = results.get("groups") or {}
    tasks = {name: row for name, row in results["results"].items() if name not in groups}
    for name, row in [*tasks.items(), *groups.items()]:
        for key, value in row.items():
            metric, comma, reading = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            count = counts.get(name)
            scores.append(
                Score(
                    task=name,
                    metric=metric,
                    filter=reading,
                    value=_number(value),
                    stderr=_number(row.get(f"{metric}_stderr,{reading}")),
                    num_questions=int(row["sample_len"] if count is None else count["effective"]),
                    num_total=None if count is None else int(count["original"]),
                    num_fewshot=None if count is None else fewshot.get(name),
                )
            )
    if not scores:
        raise DataError("harness: the tasks gave no score")
    return tuple(scores)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _document(lm: HarnessLM, results: Row, run: Row) -> Row:
    return {
        "format": "slackdlm harness 1",
        "lm_eval": version("lm_eval"),
        "model": lm.get_model_info(),
        **run,
        "seeds": {"random": DEFAULT_RANDOM_SEED, "numpy, torch, examples": DEFAULT_OTHER_SEED},
        "unused_generation_kwargs": dict(sorted(lm.unused.items())),
        "scores": [vars(score) for score in _scores(results)],
        "versions": results.get("versions"),
        "tasks": _plain(results.get("configs")),
        "questions": {
            name: [_question(sample) for sample in samples]
            for name, samples in results.get("samples", {}).items()
        },
    }


def _question(sample: Row) -> Row:
    """What was asked and answered, and how it was scored, for paired tests."""
    return {
        "doc_id": sample["doc_id"],
        "doc_hash": sample["doc_hash"],
        "filter": sample["filter"],
        "target": _plain(sample["target"]),
        "arguments": _plain(sample["arguments"]),
        "responses": _plain(sample["resps"]),
        "read_as": _plain(sample["filtered_resps"]),
        "metrics": {name: _plain(sample.get(name)) for name in sample["metrics"]},
    }


def _plain(value: Any) -> Any:
    """JSON of what lm-eval keeps: functions by name, numbers that are none as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in cast("Row", value).items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in cast("list[Any]", value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    item = getattr(value, "item", None)  # numpy's scalars
    return _plain(item()) if callable(item) else getattr(value, "__name__", str(value))
