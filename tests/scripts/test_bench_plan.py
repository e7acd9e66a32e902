"""The measurements behind ``--plan`` go on where they were interrupted."""

import csv
import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

FOUND = json.dumps({"planned": 2**21, "measured": 2**20, "num_parameters": 5})


def test_only_cases_that_are_missing_are_measured_and_each_is_kept_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = import_module("bench_plan")
    measured: list[str] = []
    left = 3

    def run(command: list[str], **settings: object) -> SimpleNamespace:
        if len(measured) == left:
            raise KeyboardInterrupt
        measured.append(command[-1])
        return SimpleNamespace(stdout=f"a line\n{FOUND}\n")

    # platform asks processes too
    monkeypatch.setattr(bench, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    output = tmp_path / "plan.csv"
    with pytest.raises(KeyboardInterrupt):
        bench.main(output)
    first = output.read_text()
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == measured == list(bench.CASES)[:3]
    assert {(row["planned_mib"], row["planned_over_measured"]) for row in rows} == {("2.0", "2.0")}
    measured.clear()
    left = len(bench.CASES) - 4  # qlora is left out
    bench.main(output)
    assert measured == [case for case in bench.CASES if case != "qlora"][3:]
    assert output.read_text().startswith(first)
