"""docs/method.md names functions and tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
ROWS = [line.split(" | ") for line in METHOD.splitlines() if line.startswith("| ")][2:]


def test_every_named_function_is_in_its_file() -> None:
    named = [re.findall(r"`([a-z_/]+\.py): (\w+)|`(\w+)`", row[2]) for row in ROWS]
    assert sum(map(len, named)) > 20
    for cells in named:
        file = ""
        for path, name, further in cells:
            file = path or file
            source = (ROOT / "src" / "slackdlm" / file).read_text(encoding="utf-8")
            assert re.search(rf"^\s*(def|class) {name or further}\b", source, re.MULTILINE), cells


def test_every_named_test_exists() -> None:
    sources = "\n".join(
        file.read_text(encoding="utf-8") for file in sorted((ROOT / "tests").rglob("test_*.py"))
    )
    names = [name for row in ROWS for name in re.findall(r"\btest_\w+\b(?!\.py)", row[3])]
    assert len(names) > 30
    assert [name for name in names if f"def {name}(" not in sources] == []
