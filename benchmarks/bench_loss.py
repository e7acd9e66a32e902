"""Times and memory of the losses on the CPU: python benchmarks/bench_loss.py [--note TEXT].

Writes benchmarks/results/loss_cpu.csv. Takes about a quarter of an hour on two idle cores; needs 12 GB.
"""

import argparse
from pathlib import Path

from slackdlm.objectives.bench import Size, bench_loss, write_rows

SIZES = [
    Size(num_samples=1, num_positions=1024, num_slack=64, hidden_size=256, vocab_size=126464),
    Size(num_samples=1, num_positions=4096, num_slack=512, hidden_size=64, vocab_size=1024),
    Size(num_samples=4, num_positions=1024, num_slack=768, hidden_size=256, vocab_size=126464),
]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--note", default="", help="what a reader of the numbers must know")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs; at least 2")
    arguments = parser.parse_args()
    path = Path(__file__).parent / "results" / "loss_cpu.csv"
    rows = []
    for size in SIZES:
        for row in bench_loss(size, repeats=arguments.repeats, note=arguments.note):
            print(row.provider, row.mode, row.p50_ms, "ms", row.peak_extra_mib, "MiB", flush=True)
            rows.append(row)
            write_rows(rows, path)
    print("written to", path)
