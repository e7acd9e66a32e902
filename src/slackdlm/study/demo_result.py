"""What readers see beside the figures: samples, replays and training curves of the demo."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from slackdlm.benchmarks.answers import read_turns
from slackdlm.models.loaded import LoadedModel
from slackdlm.sampling.sampler import Sampler, SamplerConfig
from slackdlm.sampling.trace import frames
from slackdlm.study.demo_scores import AnsweredArm
from slackdlm.study.grid import Condition
from slackdlm.study.result import Curve, Point, Replay, Sample
from slackdlm.study.toy_judge import judge
from slackdlm.study.toy_language import Task

REPLAY_RATE = 0.1
"""Shift rate of the intervened replay: high enough that one answer shows it."""
STEPS_PER_POINT = 25
"""Training steps whose losses are averaged for one point of a curve."""


def replays(
    models: Mapping[str, LoadedModel], questions: Sequence[Task], sampler: SamplerConfig
) -> list[Replay]:
    """One greedy decoding per arm and question, without an intervention and with shifted tokens."""
    prompts = [question.prompt for question in questions]
    config = replace(sampler, temperature=0.0, trace=True)
    rows: list[Replay] = []
    for arm in ("ce", "slack_ctc"):
        for condition in (Condition(config), Condition(config, "shift", REPLAY_RATE)):
            answers = Sampler(models[arm], config, condition.intervention(0)).generate(prompts)
            for prompt, answer in zip(prompts, answers, strict=True):
                row = {
                    "arm": arm,
                    "prompt": prompt,
                    "kind": condition.label,
                    "rate": condition.rate,
                    "text": answer.text,
                    "frames": frames(models[arm], answer),
                }
                rows.append(Replay.model_validate(row))
    return rows


def sample_answers(
    arms: Sequence[AnsweredArm],
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[Task],
    condition: Condition,
) -> list[Sample]:
    """These questions' answers under one condition with their canvas, beside the source story.

    Args:
        arms: One training run each.
        tokenizer: Spells the canvas.
        questions: The first questions of the study.
        condition: Which answers of an arm; those of its first decoding seed.
    """
    samples = [_sample(task.prompt, "source", task.story) for task in questions]
    for arm in arms:
        turns = read_turns(arm.file(condition, arm.grid.seeds(condition)[0]))
        for task, turn in zip(questions, turns, strict=False):
            canvas = str(tokenizer.decode(turn.rest["canvas"]))
            samples.append(_sample(task.prompt, arm.arm, turn.text, canvas))
    return samples


def _sample(prompt: str, arm: str, text: str, canvas: str = "") -> Sample:
    verdict = judge(prompt, text)
    return Sample(
        prompt=prompt,
        arm=arm,
        text=text,
        canvas=canvas,
        verdict=f"quality {verdict.quality:.2f} (grammatical {verdict.grammatical:.2f}, "
        f"coverage {verdict.coverage:.2f})",
    )


def training_curve(log: Path, *, arm: str, seed: int) -> Curve:
    """Training loss averaged over `STEPS_PER_POINT` steps, and each evaluation where it was made.

    Args:
        log: The run's ``log.jsonl``.
        arm: Its arm.
        seed: Its training seed.
    """
    points: dict[int, Point] = {}
    losses: list[float] = []
    for line in log.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        step = row["step"]
        if "loss" in row:
            losses.append(row["loss"])
        if losses and ("eval_ce" in row or len(losses) == STEPS_PER_POINT):
            mean = float(np.mean(losses))
            points[step] = Point(step=step, loss=mean, eval_ce=None, eval_objective=None)
            losses = []
        if "eval_ce" in row and step in points:
            evaluation = {key: row[key] for key in ("eval_ce", "eval_objective")}
            points[step] = points[step].model_copy(update=evaluation)
    return Curve(arm=arm, seed=seed, points=list(points.values()))
