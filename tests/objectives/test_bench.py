import csv
from pathlib import Path

from slackdlm.objectives.bench import MODES, PROVIDERS, Size, bench_loss, write_rows


def test_every_provider_is_timed_in_every_mode_and_written_down(tmp_path: Path):
    size = Size(num_samples=2, num_positions=8, num_slack=3, hidden_size=4, vocab_size=12)
    rows = list(bench_loss(size, repeats=2, note="a test"))
    assert [(row.provider, row.mode) for row in rows] == [(p, m) for p in PROVIDERS for m in MODES]
    write_rows(rows, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(rows)
    assert all(float(row["p20_ms"]) <= float(row["p80_ms"]) for row in written)
    assert {row["note"] for row in written} == {"a test"}
