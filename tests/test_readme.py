"""What the README shows runs, and the files it names exist."""

import re
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MEASURED = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")


def test_the_python_example_prints_a_finite_loss_and_the_collapsed_tokens(capsys) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(code, {})
    loss, tokens = capsys.readouterr().out.strip().split(" ", 1)
    assert 0 < float(loss) < 100
    assert tokens == "[5, 5, 6]"


def test_every_link_and_every_path_of_the_layout_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    layout = re.search(r"```\nsrc/slackdlm/\n(.*?)```", README, flags=re.DOTALL)
    assert layout is not None
    paths = []
    for line in layout[1].splitlines():
        name = line.split()[0]
        paths.append(f"src/slackdlm/{name}" if line.startswith("  ") else name)
    assert len(paths) > 10
    for path in [*links, *paths]:
        assert (ROOT / path).exists(), path


def test_the_performance_tables_are_those_made_from_the_committed_csvs() -> None:
    made = import_module("measured_tables")
    assert f"{made.BEGIN}\n{made.table()}\n{made.END}" in MEASURED
    assert f"{made.BEGIN_GPU}\n{made.gpu_table()}\n{made.END}" in MEASURED


def test_the_readme_is_short() -> None:
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    assert len(prose.split()) <= 700
    assert max(map(len, README.splitlines())) <= 100
