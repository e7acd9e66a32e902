"""Strategies and caches on models of the demo: python benchmarks/strategies_demo.py runs/demo [--seed N].

Prints a Markdown table per temperature and writes benchmarks/results/strategies_demo.csv. A few minutes.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measurement import write_csv

from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import load_model
from slackdlm.sampling.sampler import Sampler, SamplerConfig
from slackdlm.statistics import Estimate, mean_interval
from slackdlm.study.toy_judge import judge

ARMS = {"ce": "CE, matched", "slack_ctc": "slack-CTC"}
STEPS = (6, 12, 24, 48)
SCHEDULED = ("low_confidence", "entropy", "margin", "random")
BOUNDS = {"threshold": (0.5, 0.7, 0.9), "entropy_bound": (0.5, 1.5, 4.0)}
BLOCK_LENGTH = 12


class Outcome(NamedTuple):
    """What one model made of one setting."""

    forwards: float
    """Model passes per answer, mean."""
    quality: Estimate
    """Over questions."""
    words: float
    """Per answer, mean."""


def settings() -> dict[str, dict[str, Any]]:
    """Every strategy over the whole canvas, and blocks with and without caches: label -> `SamplerConfig` arguments."""
    found: dict[str, dict[str, Any]] = {
        f"{name}, {steps} steps": {"remasking": name, "steps": steps}
        for name in SCHEDULED
        for steps in STEPS
    }
    found |= {
        f"{name}, {bound:g}": {"remasking": name, "bound": bound}
        for name, bounds in BOUNDS.items()
        for bound in bounds
    }
    in_blocks = {
        "low_confidence, 12 steps": {"steps": 12},
        "low_confidence, 24 steps": {"steps": 24},
        "low_confidence, 48 steps": {"steps": 48},
        "threshold, 0.9": {"remasking": "threshold", "bound": 0.9},
    }
    caches = {"none": "exact", "prefix": "prefix cache", "dual": "dual cache"}
    return found | {
        f"blocks of {BLOCK_LENGTH}, {label}, {how}": arguments
        | {"block_length": BLOCK_LENGTH, "cache": cache}
        for label, arguments in in_blocks.items()
        for cache, how in caches.items()
    }


def decode_and_judge(
    loaded: LoadedModel,
    prompts: Sequence[str],
    config: SamplerConfig,
    rng: np.random.Generator,
) -> Outcome:
    """The answers to the prompts under one setting, judged exactly."""
    answers = Sampler(loaded, config).generate(prompts)
    scores = [judge(p, a.text).quality for p, a in zip(prompts, answers, strict=True)]
    return Outcome(
        float(np.mean([a.num_forwards for a in answers])),
        mean_interval(np.array(scores), rng=rng, bounds=(0.0, 1.0)),
        float(np.mean([len(a.text.split()) for a in answers])),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder of a finished demo")
    parser.add_argument("--seed", type=int, default=0, help="training seed of the models")
    arguments = parser.parse_args()
    plan = json.loads((arguments.demo / "plan.json").read_text(encoding="utf-8"))
    lines = (arguments.demo / "tasks" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(line)["prompt"] for line in lines]
    rng = np.random.Generator(np.random.PCG64(0))
    rows = []
    for temperature in (0.0, 1.0):
        table: dict[str, list[str]] = {label: [] for label in settings()}
        for arm in ARMS:
            loaded = load_model(arguments.demo / f"seed-{arguments.seed}" / arm / "model")
            for label, chosen in settings().items():
                config = SamplerConfig(
                    canvas_length=plan["canvas_length"],
                    temperature=temperature,
                    seed=0,
                    batch_size=64,
                    **chosen,
                )
                outcome = decode_and_judge(loaded, prompts, config, rng)
                q = outcome.quality
                table[label] += [
                    f"{outcome.forwards:.1f}",
                    f"{q.value:.3f} [{q.low:.3f}, {q.high:.3f}]",
                    f"{outcome.words:.1f}",
                ]
                rows.append(
                    {
                        "arm": arm,
                        "training_seed": arguments.seed,
                        "temperature": temperature,
                        "setting": label,
                        "forwards": round(outcome.forwards, 3),
                        "quality": round(q.value, 4),
                        "low": round(q.low, 4),
                        "high": round(q.high, 4),
                        "words": round(outcome.words, 2),
                        "num_questions": q.num_scored,
                    }
                )
        headings = [
            f"{label}: {what}"
            for label in ARMS.values()
            for what in ("forwards", "quality", "words")
        ]
        print(f"\ntemperature {temperature:g}, n = {len(prompts)}\n")
        print("| strategy |", " | ".join(headings), "|")
        print("|---" * (1 + len(headings)) + "|")
        for label, cells in table.items():
            print(f"| {label} |", " | ".join(cells), "|")
    path = Path(__file__).parent / "results" / "strategies_demo.csv"
    write_csv(path, rows)
    print("\nwritten to", path)
