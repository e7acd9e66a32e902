"""What does one decoding look like, cell by cell? Frames and samples for the demo's report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerFast

from slackdlm.benchmarks.answers import read_turns
from slackdlm.models.loaded import LoadedModel
from slackdlm.sampling.sampler import Sampler, SamplerConfig
from slackdlm.sampling.trace import frames
from slackdlm.study.demo_scores import AnsweredArm
from slackdlm.study.grid import Condition
from slackdlm.study.toy_judge import judge
from slackdlm.study.toy_language import Task

REPLAY_RATE = 0.1
"""Shift rate of the disturbed replay: high enough that one answer shows it."""


def replays(
    models: Mapping[str, LoadedModel], questions: Sequence[Task], sampler: SamplerConfig
) -> list[dict[str, Any]]:
    """One greedy decoding per arm and question, without an intervention and displaced."""
    prompts = [question.prompt for question in questions]
    config = replace(sampler, temperature=0.0, trace=True)
    shown: list[dict[str, Any]] = []
    for arm in ("ce", "slack_ctc"):
        for condition in (Condition(config), Condition(config, "shift", REPLAY_RATE)):
            answers = Sampler(models[arm], config, condition.intervention(0)).generate(prompts)
            for prompt, answer in zip(prompts, answers, strict=True):
                shown.append(
                    {
                        "arm": arm,
                        "prompt": prompt,
                        "kind": condition.label,
                        "rate": condition.rate,
                        "text": answer.text,
                        "frames": frames(models[arm], answer),
                    }
                )
    return shown


def sample_answers(
    arms: Sequence[AnsweredArm],
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[Task],
    condition: Condition,
) -> list[dict[str, Any]]:
    """These questions' answers under one condition with their canvas, beside the source story.

    Args:
        arms: One training run each.
        tokenizer: Spells the canvas.
        questions: The first questions of the study.
        condition: Which answers of an arm; those of its first decoding seed.
    """
    samples = [_sample(task, "source", task.story, "") for task in questions]
    for arm in arms:
        turns = read_turns(arm.file(condition, arm.grid.seeds(condition)[0]))
        for task, turn in zip(questions, turns, strict=False):
            canvas = str(tokenizer.decode(turn.rest["canvas"]))
            samples.append(_sample(task, arm.arm, turn.text, canvas))
    return samples


def _sample(task: Task, arm: str, text: str, canvas: str) -> dict[str, Any]:
    verdict = _verdict(task._replace(story=text))
    return {"prompt": task.prompt, "arm": arm, "text": text, "canvas": canvas, "verdict": verdict}


def _verdict(task: Task) -> str:
    verdict = judge(task.prompt, task.story)
    return f"quality {verdict.quality:.2f} (grammatical {verdict.grammatical:.2f}, coverage {verdict.coverage:.2f})"
