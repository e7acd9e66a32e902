"""Imports follow the data flow, and every module can be imported on its own."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "slackdlm"
# What each part may import of ours. The order is the data flow of the design.
ALLOWED = {
    "errors": set(),
    "atomic": set(),
    "strict_json": {"errors"},
    "config": {"errors"},
    "terminal": set(),
    "collapse": {"errors"},
    "canvas": {"errors"},
    "lattice": {"errors"},
    "models": {"atomic", "config", "errors", "strict_json"},
    "objectives": {"errors", "canvas", "collapse", "lattice"},
    "training": {"atomic", "config", "errors", "strict_json", "canvas", "models", "objectives"},
    "sampling": {"atomic", "config", "errors", "collapse", "models"},
    "evaluation": {"atomic", "errors", "collapse", "models", "sampling", "strict_json"},
    "report": {"atomic", "errors", "evaluation", "terminal"},
    "chat": {"errors", "models", "sampling", "terminal"},
    "cli": {
        "atomic",
        "chat",
        "errors",
        "terminal",
        "models",
        "objectives",
        "training",
        "sampling",
        "evaluation",
        "report",
        "studies",
    },
    "studies": {
        "atomic",
        "errors",
        "canvas",
        "collapse",
        "models",
        "training",
        "sampling",
        "evaluation",
        "report",
    },
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
