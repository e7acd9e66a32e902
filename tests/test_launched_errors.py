"""Under a launcher an error of all processes is shown once, that of another process alone with its rank."""

from pathlib import Path

import pytest
from two_processes import launch

from slackdlm.cli import launched

SCRIPT = Path(__file__).parent / "support" / "fails_in_places.py"


def of_ours(err: str) -> list[str]:
    return [line for line in err.splitlines() if "no room here" in line or "Connection" in line]


def test_an_error_of_all_processes_is_shown_once() -> None:
    done = launch(2, SCRIPT, "user", 0, 1)
    assert done.returncode == 1
    assert of_ours(done.stderr) == ["error: no room here"]


def test_an_error_of_the_first_process_is_shown_once_and_ends_the_others() -> None:
    done = launch(2, SCRIPT, "user", 0)
    assert done.returncode == 1
    assert of_ours(done.stderr) == ["error: no room here"]


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("user", "error: process 1 of 2 (the first is 0): no room here"),
        ("defect", "ValueError: no room here"),
    ],
)
def test_an_error_of_another_process_alone_is_shown_and_ends_the_launch(
    kind: str, line: str
) -> None:
    done = launch(2, SCRIPT, kind, 1)
    assert done.returncode == 1
    shown = of_ours(done.stderr)  # torch puts the rank before the lines of a traceback
    assert [text for text in shown if text.removeprefix("[rank1]: ") == line] != []


def test_a_wrong_flag_is_shown_once() -> None:
    done = launch(2, "-m", "slackdlm.cli", "train", "recipe.yaml", "--setting", "1")
    assert done.stderr.count("unrecognized arguments: --setting 1") == 1


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, (0, 1, True)),
        ({"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}, (9, 16, False)),
        ({"RANK": "8", "WORLD_SIZE": "16", "LOCAL_RANK": "0"}, (8, 16, True)),
        ({"RANK": "", "WORLD_SIZE": "x", "LOCAL_RANK": "3"}, (0, 1, True)),
    ],
)
def test_the_first_process_of_each_machine_speaks(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], rank: tuple[int, int, bool]
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched.this_rank() == rank
