"""Published files: excerpts that are shipped, and the whole ones where a folder of them exists."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def excerpts() -> Path:
    """Unchanged lines of published files; see the NOTICE beside them."""
    return ROOT / "tests" / "data"


@pytest.fixture
def published() -> Path:
    """Whole published files, from the folder SLACKDLM_DATA; the test is skipped without them."""
    folder = os.environ.get("SLACKDLM_DATA")
    if folder is None:
        pytest.skip("SLACKDLM_DATA names no folder of published files")
    return Path(folder)
