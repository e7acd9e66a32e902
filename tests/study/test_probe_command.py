import json
import re

import pytest

from slackdlm.cli import main
from slackdlm.models.loading import save_model
from slackdlm.study.toy_language import write_tasks


@pytest.fixture(scope="module")
def folder(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe-command")
    save_model(toy, folder / "model")
    lines = [json.dumps({"prompt": task.prompt}) + "\n" for task in write_tasks(4, seed=5)]
    (folder / "questions.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def run(folder, *options: str, arms: tuple[str, ...] = ("ce", "slack"), output: str = "out") -> int:
    model = folder / "model"
    return main(
        [
            "probe",
            *(word for arm in arms for word in ("--arm", f"{arm}={model}")),
            *("--questions", str(folder / "questions.jsonl"), "--output", str(folder / output)),
            *("--canvas-length", "12", "--steps", "4", "--judge", "toy"),
            *("--rates", "0.2", "0.5", "--kinds", "shift", "drop", *options),
        ]
    )


def test_models_and_questions_become_a_page_a_table_and_a_plot(folder, capsys):
    assert run(folder) == 0
    shown = capsys.readouterr().out
    assert "slack" in shown
    assert "report.html" in "".join(shown.split())
    result = json.loads((folder / "out" / "results.json").read_text(encoding="utf-8"))
    assert [(row["arm"], row["kind"], row["rate"]) for row in result["win_rates"]] == [
        (arm, kind, rate) for arm in ("ce", "slack") for kind in ("shift", "drop") for rate in (0.2, 0.5)
    ]  # fmt: skip
    assert {row["num_total"] for row in result["win_rates"]} == {4}
    assert result["win_rates"][0]["dose"]["committed"] > 0
    assert [entry["value"] for entry in result["contrasts"]] == [0.0] * 4
    files = ("report.html", "table.md", "plots/probe.png")
    pages = [(folder / "out" / name).read_bytes() for name in files]
    assert all(len(page) > 500 for page in pages)
    assert main(["report", str(folder / "out")]) == 0
    assert [(folder / "out" / name).read_bytes() for name in files] == pages


def test_running_again_changes_no_file(folder, capsys):
    run(folder)
    before = {file: file.read_bytes() for file in (folder / "out").rglob("*") if file.is_file()}
    capsys.readouterr()
    assert run(folder) == 0
    assert "0 new calls" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in before} == before


def test_a_dry_run_decodes_and_asks_nothing(folder, capsys):
    assert run(folder, "--dry-run", "--seeds", "2", arms=("ce",), output="dry") == 0
    shown = " ".join(capsys.readouterr().out.split())
    # 4 questions under 4 conditions with 2 seeds, and once undisturbed; each judged in 2 orders
    assert "36 answers to decode, then at most 64 calls" in shown
    assert "what fails or brings no verdict is asked for again on top" in shown
    assert not (folder / "dry").exists()
    tokens = []
    for length in ("12", "112"):
        assert run(folder, "--dry-run", "--canvas-length", length, output="dry") == 0
        found = re.search(
            r"64 calls with about (\d+) prompt", " ".join(capsys.readouterr().out.split())
        )
        assert found is not None
        tokens.append(int(found[1]))
    assert tokens[1] - tokens[0] == 64 * 2 * 100  # calls, answers, tokens


def test_games_that_are_missing_end_with_an_error_behind_the_report(folder, capsys):
    assert run(folder, "--max-calls", "3", arms=("ce",), output="poor") == 2
    assert "have no score" in capsys.readouterr().err
    assert (folder / "poor" / "report.html").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--arm", "nameless"), "expected NAME=MODEL"),
        (("--arm", "x=m+"), "expected NAME=MODEL"),
        (("--benchmark", "arena"), "unknown 'arena'"),
        (("--benchmark", "mt-bench"), "grades single answers"),
        (
            ("--benchmark", "creative-writing"),
            "creative-writing grades single answers; the probe compares each with its baseline. Use a "
            "benchmark of pairs",
        ),
        (("--first", "0"), "--first: expected at least 1"),
        (("--rates", "0"), "rates must be above 0"),
        (("--kinds", "jump"), "kind: expected one of"),
        (("--seed", "-1"), "seed: expected at least 0, got -1"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_one_error_before_anything_is_decoded(folder, capsys, options, message):
    assert run(folder, *options, output="bad") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (folder / "bad").exists()
