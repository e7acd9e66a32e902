"""Time and memory of decoding on the CPU: python benchmarks/bench_decode.py [--note TEXT].

Writes benchmarks/results/decode_cpu.csv. Takes about five minutes on two idle cores; needs 3 GB.
"""

import argparse
from pathlib import Path

from slackdlm.sampling.bench import CASES, Size, bench_decode, write_rows

SHORT = Size()
LONG = Size(prompt_length=64, canvas_length=128, block_length=32)
NOT_LONG = ("exact, 8 singly", "exact, batch of 8", "published, temperature 1")
# Timed runs: the short canvas takes more, as its steps are short and what is compared differs little.
SIZES = [
    (SHORT, CASES, 9),
    (LONG, {n: case for n, case in CASES.items() if n not in NOT_LONG}, 3),
]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--note", default="", help="what a reader of the numbers must know")
    arguments = parser.parse_args()
    path = Path(__file__).parent / "results" / "decode_cpu.csv"
    rows = []
    for size, cases, repeats in SIZES:
        print(size)
        for row in bench_decode(size, cases=cases, repeats=repeats, note=arguments.note):
            print(
                f"{row.provider:26} {row.p20_ms:9.1f} {row.p50_ms:9.1f} {row.p80_ms:9.1f} ms "
                f"{row.tokens_per_second:8.1f} tokens/s {row.forwards_per_token:.3f} passes/token "
                f"{row.same_tokens} same {row.peak_extra_mib} MiB",
                flush=True,
            )
            rows.append(row)
        write_rows(rows, path)
    print("written to", path)
