"""Scripts that docs name still fit the library: each can be imported, which runs nothing."""

from importlib import import_module
from pathlib import Path

import pytest

SCRIPTS = sorted(file.stem for file in (Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_can_be_imported(name: str) -> None:
    assert import_module(name).__doc__
