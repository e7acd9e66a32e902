"""Time and memory of decoding on the CPU: python benchmarks/bench_decode.py [--note TEXT].

Writes benchmarks/results/decode_cpu.csv. Takes a few minutes on two idle cores; needs 3 GB.
"""

import argparse
from pathlib import Path

from slackdlm.sampling.bench import CASES, Size, bench_decode, write_rows

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--note", default="", help="what a reader of the numbers must know")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs; at least 2")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results" / "decode_cpu.csv"
    )
    arguments = parser.parse_args()
    rows = []
    cases = {name: CASES[name] for name in arguments.cases}
    for row in bench_decode(Size(), cases=cases, repeats=arguments.repeats, note=arguments.note):
        print(
            f"{row.provider:26} {row.p20_ms:9.1f} {row.p50_ms:9.1f} {row.p80_ms:9.1f} ms "
            f"{row.tokens_per_second:8.1f} tokens/s {row.forwards_per_token:.3f} forwards/token "
            f"{row.same_tokens} same {row.peak_extra_mib} MiB",
            flush=True,
        )
        rows.append(row)
    write_rows(rows, arguments.output)
    print("written to", arguments.output)
