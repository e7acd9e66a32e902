import csv
import dataclasses

import pytest
import torch

from slackdlm.errors import ConfigError
from slackdlm.sampling.bench import CASES, Size, bench_decode, write_rows

SMALL = Size(
    prompt_length=4, canvas_length=8, block_length=4, hidden_size=16, num_layers=1, vocab_size=64
)


def test_every_case_is_timed_against_the_published_algorithm_and_written_down(tmp_path):
    rows = list(bench_decode(SMALL, repeats=2, note="a test"))
    assert [row.provider for row in rows] == list(CASES)
    by_name = {row.provider: row for row in rows}
    assert by_name["exact"].same_tokens == 1.0
    assert by_name["published"].forwards_per_token == 1.0
    assert by_name["threshold"].forwards_per_token < 1.0
    assert by_name["exact, temperature 1"].same_tokens is None
    write_rows(rows, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [row["note"] for row in written] == ["a test"] * len(CASES)
    assert all(float(row["p20_ms"]) <= float(row["p80_ms"]) for row in written)


def test_too_few_repeats_are_named():
    with pytest.raises(ConfigError, match="expected at least 2 repeats for quantiles, got 1"):
        next(bench_decode(SMALL, repeats=1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_named():
    with pytest.raises(ConfigError, match="finds no CUDA device for 'cuda'"):
        next(bench_decode(dataclasses.replace(SMALL), device="cuda"))
