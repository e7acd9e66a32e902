"""Times and memory of the losses on the CPU: python benchmarks/bench_loss.py [--note TEXT] [--output FILE].

Writes benchmarks/results/loss_cpu.csv. Takes about a quarter of an hour on two idle cores; needs 12 GB.
"""

import argparse
from pathlib import Path

from loss_cost import PROVIDERS, Size, bench_loss
from measurement import write_rows

LLADA = Size(num_samples=1, num_positions=1024, num_slack=64, hidden_size=256, vocab_size=126464)
LONG = Size(num_samples=1, num_positions=4096, num_slack=512, hidden_size=64, vocab_size=1024)
BATCH = Size(num_samples=4, num_positions=1024, num_slack=768, hidden_size=256, vocab_size=126464)
CASES = [
    (LLADA, PROVIDERS, 9),
    (LONG, PROVIDERS, 9),
    (BATCH, {name: PROVIDERS[name] for name in ("ce_fused", "slack_ctc_fused", "torch_ctc")}, 3),
]
RESULTS = Path(__file__).parent / "results" / "loss_cpu.csv"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--note", default="", help="what a reader of the numbers must know")
    parser.add_argument("--output", type=Path, default=RESULTS, help="CSV file")
    arguments = parser.parse_args()
    path = arguments.output
    rows = []
    for size, providers, repeats in CASES:
        for row in bench_loss(size, providers=providers, repeats=repeats, note=arguments.note):
            print(row.provider, row.mode, row.p50_ms, "ms", row.peak_extra_mib, "MiB", flush=True)
            rows.append(row)
            write_rows(rows, path)
    print("written to", path)
