"""The CPU kernel where its compiled code cannot be kept, or is damaged: in processes of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import slackdlm

# Two ways (token, slack; slack, token) of probability 1/4 each.
PROGRAM = """
import math, torch
from slackdlm.lattice import cpu
from slackdlm.lattice.band import Columns
half = math.log(0.5)
scores = torch.full((1, 2, 2), half), torch.full((1, 2), half)
result = cpu.posteriors(Columns(*scores, torch.tensor([2]), torch.tensor([1])))
print(round(math.exp(result.log_likelihood.item()), 6), cpu.__file__)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, without compiled code."""
    source = Path(slackdlm.__file__).parent
    target = tmp_path / "site" / "slackdlm"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def run(package: Path, **variables: str) -> None:
    """The value by hand, whatever lies in the cache, and not a word on stderr."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_CACHE")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=kept | {"PYTHONPATH": str(package.parent)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["0.5", str(package / "lattice" / "cpu.py")]


def test_the_kernel_runs_where_nothing_can_be_cached(package: Path) -> None:
    """Root may write anywhere, but not below a file or in ``/proc``."""
    (package / "lattice" / "__pycache__").write_text("")
    run(package, HOME="/proc/nobody", XDG_CACHE_HOME="/proc/nobody", NUMBA_CACHE_DIR="/proc/no")


def test_a_damaged_cache_is_replaced(package: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    run(package, NUMBA_CACHE_DIR=cache)
    files = {file: file.read_bytes() for file in Path(cache).rglob("*.nb?")}
    assert len({file.suffix for file in files}) == 2
    for suffix, kept in ((".nbi", 20), (".nbc", 100)):
        for file, content in files.items():
            file.write_bytes(content[:kept] if file.suffix == suffix else content)
        run(package, NUMBA_CACHE_DIR=cache)
        assert all(file.stat().st_size > 100 for file in files if file.suffix == suffix)
