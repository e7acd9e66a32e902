"""What does a training step cost in each arm, on the CPU? python benchmarks/bench_training.py.

Random weights and texts at the size of recipes/tiny-gsm8k.yaml, and the same with LLaDA's vocabulary. The arms take
turns. A minute on an idle machine; writes benchmarks/results/training_cpu.csv.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from measurement import hardware, spread, write_csv

from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.llada import LLaDAModelLM
from slackdlm.training.config import ObjectiveConfig
from slackdlm.training.data import Sample
from slackdlm.training.draw import CanvasSpec, collate
from slackdlm.training.step_loss import sample_losses
from slackdlm.training.stream import TrainStream

CANVAS_LENGTH, PROMPT_LENGTH, BATCH_SIZE = 256, 64, 8
ARMS = {
    "ce": ObjectiveConfig(kind="ce"),
    "slack_ctc": ObjectiveConfig(kind="slack_ctc", slack_ratio=(0.0, 0.5)),
    "mixed": ObjectiveConfig(kind="mixed", ctc_weight=0.5, slack_ratio=(0.0, 0.5)),
}


def step_times(vocab_size: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of forward, loss, backward and optimizer of every arm on the same samples."""
    torch.manual_seed(0)
    config = LLaDAConfig(
        vocab_size=vocab_size, d_model=128, n_layers=4, n_heads=4, mlp_hidden_size=384,
        max_sequence_length=PROMPT_LENGTH + CANVAS_LENGTH,
    )  # fmt: skip
    model: Any = LLaDAModelLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(0)

    def words(length: int) -> torch.Tensor:
        return torch.randint(4, vocab_size, (length,), generator=generator)

    samples = [
        Sample(source=str(n), prompt=words(PROMPT_LENGTH), response=words(80 + 10 * n))
        for n in range(BATCH_SIZE)
    ]
    batches: dict[str, Any] = {}
    for name, arm in ARMS.items():
        spec = CanvasSpec(
            objective=arm, canvas_length=CANVAS_LENGTH, mask_id=0, slack_id=1, pad_id=2
        )
        stream = TrainStream(samples, spec, num_steps=1, batch_size=BATCH_SIZE, seed=0, data_seed=0)
        batches[name] = spec, collate([stream[n] for n in range(BATCH_SIZE)], spec=spec)
    found: dict[str, list[float]] = {name: [] for name in ARMS}
    for turn in range(repeats + 2):
        for name, (spec, batch) in batches.items():
            start = time.perf_counter()
            sample_losses(model, model, batch, spec=spec).mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if turn >= 2:
                found[name].append(1000 * (time.perf_counter() - start))
    return found


if __name__ == "__main__":
    rows: list[dict[str, object]] = []
    for vocab_size, repeats in ((2048, 30), (126_464, 7)):
        times = step_times(vocab_size, repeats)
        ce = statistics.median(times["ce"])
        for name, milliseconds in times.items():
            times_ms = spread(milliseconds)
            rows.append(
                {
                    "arm": name,
                    "vocab_size": vocab_size,
                    "p20_ms": round(times_ms.p20, 1),
                    "p50_ms": round(times_ms.p50, 1),
                    "p80_ms": round(times_ms.p80, 1),
                    "ratio_to_ce": round(times_ms.p50 / ce, 3),
                    "repeats": repeats,
                    "num_threads": torch.get_num_threads(),
                    "hardware": hardware("cpu"),
                    "torch_version": torch.__version__,
                }
            )
            print(*(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    write_csv(Path(__file__).parent / "results" / "training_cpu.csv", rows)
