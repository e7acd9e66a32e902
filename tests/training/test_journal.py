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
