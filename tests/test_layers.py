"""Imports follow the data flow, and every module can be imported on its own."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "slackdlm"
# What each part may import of ours. The order is the data flow of the design.
GROUND = {
    "errors",
    "atomic",
    "strict_json",
    "strict_yaml",
    "config",
    "jsonl",
    "journal",
    "judgments",
    "records",
}
ALLOWED = {
    "errors": set(),
    "atomic": set(),
    "strict_json": {"errors"},
    "strict_yaml": {"errors"},
    "config": {"errors", "strict_yaml"},
    "terminal": set(),
    "jsonl": {"errors", "atomic", "strict_json"},
    "journal": {"atomic", "errors"},
    "judgments": {"errors", "jsonl"},
    "records": {"errors", "jsonl", "judgments"},
    "collapse": {"errors"},
    "canvas": {"errors"},
    "lattice": {"errors"},
    "models": {"atomic", "config", "errors", "strict_json"},
    "objectives": {"errors", "canvas", "collapse", "lattice"},
    "training": {"atomic", "config", "errors", "strict_json", "canvas", "lattice", "models"}
    | {"objectives"},
    "sampling": GROUND | {"collapse", "models"},
    "benchmarks": GROUND | {"models"},
    "statistics": {"errors"},
    "judging": GROUND | {"models", "benchmarks"},
    "harness": GROUND | {"models", "sampling"},
    "report": {
        "atomic",
        "config",
        "errors",
        "jsonl",
        "terminal",
        "study",
        "statistics",
        "judgments",
        "benchmarks",
    },
    "chat": {"config", "errors", "models", "sampling", "terminal"},
    "study": GROUND
    | {"canvas", "collapse", "models", "training", "sampling"}
    | {"benchmarks", "judging", "statistics", "report"},
    "cli": GROUND
    | {"chat", "terminal", "models", "objectives", "training", "sampling"}
    | {"benchmarks", "judging", "statistics", "harness", "report", "study"},
}


def imported_parts(file: Path) -> set[str]:
    parts: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        parts |= {name.split(".")[1] for name in names if name.startswith("slackdlm.")}
    return parts


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_imports_follow_the_data_flow(part: str) -> None:
    place = SOURCE / part
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files
    for file in files:
        found = imported_parts(file) - {part}
        assert found <= ALLOWED[part], f"{file.name} of {part} imports {found - ALLOWED[part]}"


def test_every_part_of_the_package_has_a_rule() -> None:
    parts = {p.stem for p in SOURCE.glob("*.py")} | {p.name for p in SOURCE.iterdir() if p.is_dir()}
    assert parts - {"__init__", "__pycache__", "py"} == set(ALLOWED)


@pytest.mark.parametrize("name", ["utils", "common", "helpers", "base", "misc"])
def test_no_module_without_a_subject(name: str) -> None:
    assert not list(SOURCE.rglob(f"{name}.py"))


def test_test_files_have_names_of_their_own() -> None:
    """Pytest imports them by name alone."""
    names = [file.name for file in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
