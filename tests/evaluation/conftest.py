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
    """Whole published files, from SLACKDLM_DATA or ../shared/data; the test is skipped without them."""
    folder = Path(os.environ.get("SLACKDLM_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "arena_hard").is_dir():
        pytest.skip(f"no published files in {folder}")
    return folder
