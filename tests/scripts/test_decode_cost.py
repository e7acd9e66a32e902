import csv
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from decode_cost import CASES, Size, bench_decode
from measurement import write_rows

from slackdlm.errors import ConfigError

ROOT = Path(__file__).parents[2]
SMALL = Size(
    prompt_length=4, canvas_length=8, block_length=4, hidden_size=16, num_layers=1, vocab_size=64
)


def test_every_case_is_timed_against_the_published_algorithm_and_written_down(tmp_path):
    rows = list(bench_decode(SMALL, repeats=2, paired_steps=20, note="a test"))
    assert [row.provider for row in rows] == list(CASES)
    by_name = {row.provider: row for row in rows}
    assert by_name["exact"].same_tokens == 1.0
    assert by_name["published"].forwards_per_token == 1.0
    assert by_name["threshold"].forwards_per_token < 1.0
    assert by_name["exact, temperature 1"].same_tokens is None
    assert [name for name, row in by_name.items() if row.step_ratio is not None] == [
        "exact, shift 1 %"
    ]
    write_rows(rows, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [row["note"] for row in written] == ["a test"] * len(CASES)
    assert all(float(row["p20_ms"]) <= float(row["p80_ms"]) for row in written)


MEMORY = """
from decode_cost import CASES, Size, bench_decode
size = Size(
    prompt_length=4, canvas_length=8, block_length=4, hidden_size=16, num_layers=1, vocab_size=2**15
)
cases = {name: CASES[name] for name in ("published", "exact")}
for _ in range(2):
    print(*(row.peak_tensor_mib for row in bench_decode(size, cases=cases, repeats=2)))
"""


def test_the_published_algorithm_holds_all_logits_twice_and_ours_those_of_the_block():
    # In a process of its own: the tests' checks of shapes keep tensors alive.
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'benchmarks'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    # 2 x 4 bytes x 32,768 logits are 0.25 MiB a position: of 12 positions, and of 4.
    assert done.stdout.splitlines() == ["3.0 1.0"] * 2


def test_too_few_repeats_are_named():
    with pytest.raises(ConfigError, match="expected at least 2 repeats for quantiles, got 1"):
        next(bench_decode(SMALL, repeats=1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_named():
    with pytest.raises(ConfigError, match="finds no CUDA device for 'cuda'"):
        next(bench_decode(dataclasses.replace(SMALL), device="cuda"))
