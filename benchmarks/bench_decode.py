"""Time and memory of decoding on the CPU: python benchmarks/bench_decode.py [--canvas 32|128] [--output FILE].

Writes benchmarks/results/decode_cpu.csv; with --canvas only the rows of that canvas. Each of the two takes about four
minutes on two idle cores; needs 3 GB.
"""

import argparse
import csv
from dataclasses import asdict
from pathlib import Path

from decode_cost import CASES, Size, bench_decode
from measurement import write_csv

RESULTS = Path(__file__).parent / "results" / "decode_cpu.csv"
SHORT = Size()
LONG = Size(prompt_length=64, canvas_length=128, block_length=32)
NOT_LONG = ("exact, 8 singly", "exact, batch of 8", "published, temperature 1")
# Timed runs: the short canvas takes more, as its steps are short and what is compared differs little.
SIZES = [
    (SHORT, CASES, 9),
    (LONG, {n: case for n, case in CASES.items() if n not in NOT_LONG}, 3),
]


def main() -> None:
    """Measure, show and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--canvas", type=int, choices=[size.canvas_length for size, _, _ in SIZES])
    parser.add_argument("--note", default="", help="what a reader of the numbers must know")
    parser.add_argument("--output", type=Path, default=RESULTS, help="CSV file")
    arguments = parser.parse_args()
    measured = [each for each in SIZES if arguments.canvas in (None, each[0].canvas_length)]
    rows: dict[int, list[dict[str, object]]] = {size.canvas_length: [] for size, _, _ in SIZES}
    if len(measured) < len(SIZES):
        with arguments.output.open(newline="", encoding="utf-8") as file:
            for kept in csv.DictReader(file):
                rows[int(kept["canvas_length"])].append(dict(kept))
    for size, cases, repeats in measured:
        print(size)
        rows[size.canvas_length] = []
        for row in bench_decode(size, cases=cases, repeats=repeats, note=arguments.note):
            ratio = "" if row.step_ratio is None else f", a step {row.step_ratio} times as long"
            print(
                f"{row.provider:26} {row.p20_ms:9.1f} {row.p50_ms:9.1f} {row.p80_ms:9.1f} ms "
                f"{row.tokens_per_second:8.1f} tokens/s {row.forwards_per_token:.3f} passes/token "
                f"{row.same_tokens} same {row.peak_tensor_mib} MiB{ratio}",
                flush=True,
            )
            rows[size.canvas_length].append(asdict(row))
    write_csv(arguments.output, [row for each in rows.values() for row in each])
    print("written to", arguments.output)


if __name__ == "__main__":
    main()
