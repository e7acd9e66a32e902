from pathlib import Path

import pytest

from slackdlm.errors import DataError
from slackdlm.training.journal import append, cut_back, read


def test_records_come_back_in_order(tmp_path: Path) -> None:
    for step in range(3):
        append(tmp_path / "log", {"step": step})
    assert read(tmp_path / "log") == [{"step": 0}, {"step": 1}, {"step": 2}]


def test_a_journal_not_begun_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "log") == []


def test_an_unfinished_last_line_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"step": 1}\n{"step": 2')
    assert read(tmp_path / "log") == [{"step": 1}]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"step": 1}\n{\n{"step": 2}\n')
    with pytest.raises(DataError, match=r"log:2: not valid JSON"):
        read(tmp_path / "log")


def test_cutting_back_keeps_what_the_checkpoint_knows(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"step": 1}\n{"step": 2}\n{"step": 2}\n{"step": 3}\n{"st')
    cut_back(tmp_path / "log", step=2)
    assert (tmp_path / "log").read_text() == '{"step": 1}\n{"step": 2}\n{"step": 2}\n'


def test_a_number_that_json_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        append(tmp_path / "log", {"step": 1, "loss": float("inf")})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\xff\xfe", r"log:1: not valid JSON .*utf-8"),
        (b"[1]", "log:1: expected a JSON object, got list"),
        (b'{"loss": 1.0}', "log:1: expected a whole number in 'step'"),
        (b'{"step": 1, "loss": "2"}', "log:1: expected a number in 'loss', got str"),
        (b'{"step": 1, "loss": NaN}', "log:1: not valid JSON .NaN is no JSON number"),
    ],
)
def test_a_line_that_no_run_wrote_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "log").write_bytes(line + b"\n")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "log")
