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


@pytest.fixture(scope="session")
def rubric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge prompt in Creative-Writing-Bench's layout with criteria beside it; ours, as its own have no licence."""
    folder = tmp_path_factory.mktemp("rubric")
    (folder / "creative_writing_criteria.txt").write_text("Clear\nVivid\nDull")
    (folder / "negative_criteria.txt").write_text("Dull")
    prompt = folder / "creative_writing_judging_prompt.txt"
    prompt.write_text(
        "Grade it.\n{lower_is_better_criteria}\n[P]\n{writing_prompt}\n[R]\n{test_model_response}\n[C]\n"
        "{creative_writing_criteria}"
    )
    return prompt
