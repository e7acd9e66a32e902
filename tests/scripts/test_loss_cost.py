import csv
from pathlib import Path

import pytest
from loss_cost import MODES, PROVIDERS, Size, bench_loss
from measurement import write_rows

from slackdlm.errors import ConfigError


def test_every_provider_is_timed_in_every_mode_and_written_down(tmp_path: Path):
    size = Size(num_samples=2, num_positions=8, num_slack=3, hidden_size=4, vocab_size=12)
    rows = list(bench_loss(size, repeats=2, note="a test"))
    assert [(row.provider, row.mode) for row in rows] == [(p, m) for m in MODES for p in PROVIDERS]
    write_rows(rows, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(rows)
    assert all(float(row["p20_ms"]) <= float(row["p80_ms"]) for row in written)
    assert {row["note"] for row in written} == {"a test"}


SIZE = {"num_samples": 1, "num_positions": 4, "num_slack": 1, "hidden_size": 2, "vocab_size": 5}


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_samples", 0), ("num_positions", 0), ("hidden_size", 0), ("num_slack", 4),
     ("num_slack", -1), ("vocab_size", 2)],
)  # fmt: skip
def test_a_size_without_a_problem_is_refused(key: str, value: int):
    with pytest.raises(ConfigError, match=rf"bench: {key} must .* got {value}"):
        Size(**{**SIZE, key: value})
