"""Strategies and caches on models of the demo: python benchmarks/strategies_demo.py runs/demo [--seed N].

Prints a Markdown table per temperature and writes benchmarks/results/strategies_demo.csv. A few minutes.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from slackdlm.measurement import write_csv
from slackdlm.models.loading import load_model
from slackdlm.studies.strategy_comparison import compare, settings

ARMS = {"ce": "CE, matched", "slack_ctc": "slack-CTC"}

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
        ways = settings(temperature=temperature)
        table = {way.label: [] for way in ways}
        for arm in ARMS:
            loaded = load_model(arguments.demo / f"seed-{arguments.seed}" / arm / "model")
            found = compare(loaded, prompts, ways, canvas_length=plan["canvas_length"], rng=rng)
            for outcome in found:
                q = outcome.quality
                table[outcome.setting.label] += [
                    f"{outcome.forwards:.1f}",
                    f"{q.value:.3f} [{q.low:.3f}, {q.high:.3f}]",
                    f"{outcome.words:.1f}",
                ]
                rows.append(
                    {
                        "arm": arm,
                        "training_seed": arguments.seed,
                        "temperature": temperature,
                        "setting": outcome.setting.label,
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
