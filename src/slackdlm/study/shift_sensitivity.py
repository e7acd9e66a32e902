"""How much quality does a displaced token cost? Decode the same questions under a grid of interventions.

A question's random numbers depend on its own number and the decoding seed alone, so runs can be compared question
by question. Rates draw the same numbers too, but once two of them have displaced different tokens they decode
different canvases: the tokens displaced at a low rate need not be among those displaced at a higher one.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slackdlm.models.loading import LoadedModel
from slackdlm.sampling.intervention import InterventionKind, ShiftIntervention
from slackdlm.sampling.sampler import Generation, Sampler, SamplerConfig


class Condition(NamedTuple):
    """One cell of the grid."""

    temperature: float
    steps: int
    kind: InterventionKind | None
    """``None``: no intervention."""
    rate: float
    """Share of content tokens; 0 without an intervention."""

    @property
    def label(self) -> str:
        """The kind as reports write it."""
        return self.kind or "none"


def grid(
    *,
    temperatures: Sequence[float],
    steps: Sequence[int],
    rates: Sequence[float],
    kinds: Sequence[InterventionKind],
    probed_steps: Sequence[int],
) -> list[Condition]:
    """Un-intervened decoding at every temperature and step count; every kind and rate at ``probed_steps``."""
    plain = [Condition(t, s, None, 0.0) for t in temperatures for s in steps]
    probed = [
        Condition(t, s, kind, rate)
        for t in temperatures
        for s in steps
        if s in probed_steps
        for kind in kinds
        for rate in rates
        if rate > 0
    ]
    return plain + probed


def is_deterministic(condition: Condition) -> bool:
    """Whether every decoding seed would give the same answer, so that one is enough."""
    return condition.temperature == 0 and condition.kind is None


def num_runs(conditions: Iterable[Condition], *, num_seeds: int) -> int:
    """Decoding runs over the questions that a grid takes."""
    return sum(1 if is_deterministic(condition) else num_seeds for condition in conditions)


def decode(
    loaded: LoadedModel,
    prompts: Sequence[str],
    condition: Condition,
    *,
    canvas_length: int,
    seed: int,
    delayed: bool,
    trace: bool = False,
) -> list[Generation]:
    """Answers of one model to all prompts under one condition; ``delayed``: ends and slack come last."""
    intervention = None
    if condition.kind is not None:
        intervention = ShiftIntervention(condition.rate, kind=condition.kind, seed=seed)
    config = SamplerConfig(
        canvas_length=canvas_length,
        steps=condition.steps,
        temperature=condition.temperature,
        seed=seed,
        delay_end=delayed,
        delay_slack=delayed,
        batch_size=64,
        trace=trace,
    )
    return Sampler(loaded, config, intervention).generate(prompts)


def answer_grid(
    loaded: LoadedModel,
    prompts: Sequence[str],
    conditions: Sequence[Condition],
    file: Path,
    *,
    identity: dict[str, Any],
    canvas_length: int,
    delayed: bool,
    num_seeds: int,
) -> None:
    """Decode every condition and write one ``answers.jsonl``, whole or not at all.

    A decoding that was cut off goes on behind the last run over the questions that is complete in ``FILE.part``.

    Args:
        loaded: The model under study.
        prompts: Questions, in order; a row names its question by this place.
        conditions: The grid.
        file: Where the answers go.
        identity: Written into every row, such as the arm and its training seed.
        canvas_length: ``L``, the same for every arm.
        delayed: Cells that propose an end or slack are decoded last.
        num_seeds: Decoding seeds per condition (one where all would agree).
    """
    part = file.with_suffix(".part")
    runs = [
        (condition, seed)
        for condition in conditions
        for seed in range(1 if is_deterministic(condition) else num_seeds)
    ]
    num_done = _keep_complete_runs(part, num_questions=len(prompts))
    with part.open("a", encoding="utf-8") as stream:
        for condition, seed in runs[num_done:]:
            answers = decode(
                loaded,
                prompts,
                condition,
                canvas_length=canvas_length,
                seed=seed,
                delayed=delayed,
            )
            for question, answer in enumerate(answers):
                row = answer_row(loaded, prompts[question], question, condition, seed, answer)
                stream.write(json.dumps(identity | row) + "\n")
            stream.flush()
    part.replace(file)


def _keep_complete_runs(part: Path, *, num_questions: int) -> int:
    """Cut a file behind its last complete run over the questions; how many runs it then holds."""
    if not part.exists():
        return 0
    lines = part.read_bytes().splitlines(keepends=True)
    num_whole = len(lines) - (bool(lines) and not lines[-1].endswith(b"\n"))
    num_runs_done = num_whole // num_questions
    with part.open("r+b") as stream:
        stream.truncate(sum(map(len, lines[: num_runs_done * num_questions])))
    return num_runs_done


def answer_row(
    loaded: LoadedModel,
    prompt: str,
    question: int,
    condition: Condition,
    seed: int,
    answer: Generation,
) -> dict[str, Any]:
    """One line of ``answers.jsonl``."""
    return {
        "question": question,
        "prompt": prompt,
        "temperature": condition.temperature,
        "steps": condition.steps,
        "kind": condition.label,
        "rate": condition.rate,
        "decoding_seed": seed,
        "text": answer.text,
        "tokens": answer.tokens,
        "canvas": answer.canvas,
        "slack_share": _slack_share(loaded, answer),
        "forwards": answer.num_forwards,
        "dose": answer.dose._asdict(),
    }


def _slack_share(loaded: LoadedModel, answer: Generation) -> float | None:
    """Slack before the first end of text, as a share of those cells; ``None`` where there are none."""
    end = next((i for i, t in enumerate(answer.canvas) if t in loaded.eos_ids), len(answer.canvas))
    return answer.canvas[:end].count(loaded.slack_id) / end if end else None
