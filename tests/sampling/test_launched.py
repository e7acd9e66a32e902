"""``slackdlm answer`` under a launcher: real processes, one output, the same as without."""

import json
from pathlib import Path
from typing import Any

import pytest
from toy_questions import toy_model, toy_questions
from two_processes import run_in_two_processes

from slackdlm.models.loading import save_model


def without_seconds(file: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_two_launched_processes_write_what_one_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from slackdlm.cli import main

    model, file = tmp_path / "model", tmp_path / "questions.jsonl"
    save_model(toy_model(), model)
    rows = [{"id": q.id, "messages": [dict(m) for m in q.messages]} for q in toy_questions(7)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["answer", model, "--questions", file, "--gen-length", 8, "--steps", 4, "--seed", 1]
    command += ["--temperature", 1, "--intervention", "shift", "--rate", 0.2, "--batch-size", 2]
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    assert main([*map(str, command), "--output", str(one)]) == 0
    shown = run_in_two_processes("-m", "slackdlm.cli", *command, "--output", two)
    assert "7 answers" in shown
    assert shown.count("its share is done") <= 1, "the last to finish writes the output"
    assert len(list((tmp_path / "two.jsonl.journal").iterdir())) == 2, "a file for each process"
    assert without_seconds(two) == without_seconds(one)
    assert [row["id"] for row in without_seconds(two)] == [f"q{n}" for n in range(7)]
    assert len({row["text"] for row in without_seconds(one)}) > 4
