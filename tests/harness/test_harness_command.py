import importlib.util
import json
import subprocess
import sys

import pytest

from slackdlm.cli import main
from slackdlm.models.loading import save_model


def run(*words: object) -> int:
    return main(["harness", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def model(speaker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("harness") / "model"
    save_model(speaker, folder)
    return folder


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")


@pytest.mark.usefixtures("wide")
def test_scores_are_shown_written_and_not_computed_twice(
    capsys, monkeypatch, model, gsm8k_task, tmp_path
):
    pytest.importorskip("lm_eval")
    output = tmp_path / "out" / "results.json"
    words = (
        model, "--tasks", "toy_gsm8k", "--include-path", gsm8k_task, "--limit", 3,
        "--canvas-length", 8, "--steps", 2, "--output", output,
    )  # fmt: skip
    assert run(*words) == 0
    shown = capsys.readouterr().out
    for text in (
        "toy_gsm8k",
        "exact_match by strict-match",
        "0.0000",
        "3/6",
        "canvas: 8 positions",
        str(output),
    ):
        assert text in shown
    first = json.loads(output.read_text(encoding="utf-8"))
    assert [score["num_questions"] for score in first["scores"]] == [3, 3]
    monkeypatch.setattr(
        "slackdlm.harness.adapter.HarnessLM._generate",
        lambda self, batch: pytest.fail("computed again"),
    )
    assert run(*words, "--batch-size", 1) == 0
    second = json.loads(output.read_text(encoding="utf-8"))
    assert second["scores"] == first["scores"]
    assert second["questions"] == first["questions"]
    assert {file.name for file in output.parent.iterdir()} == {
        "results.json",
        "results.json.journal",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--tasks", " , "), "no task; name some"),
        (("--tasks", "toy_gsm8k", "--limit", "0"), "--limit: expected at least 1 question, got 0"),
        (
            ("--tasks", "toy_gsm8k", "--num-fewshot", "-2"),
            "--num-fewshot: expected at least 0, got -2",
        ),
        (("--tasks", "toy_gsm8k", "--mc-samples", "0"), "--mc-samples: expected at least 1, got 0"),
        (("--tasks", "toy_gsm8k", "--system", "x"), "--system: a system message needs --chat"),
        (
            ("--tasks", "toy_gsm8k", "--output", "a", "--journal", "a"),
            "--journal a: would replace another of the files",
        ),
        (
            ("--tasks", "toy_gsm8k", "--output", "/"),
            "--output /: cannot be written (it is a folder)",
        ),
        (("--tasks", "toy_gsm8k", "--canvas-length", "600"), "leaves of the model's 512"),
        (
            ("--tasks", "toy_gsm8k", "--rate", "0.1"),
            "intervention.kind: this key is required",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    capsys, monkeypatch, model, gsm8k_task, words, message, tmp_path
):
    pytest.importorskip("lm_eval")
    monkeypatch.chdir(tmp_path)
    assert run(model, "--include-path", gsm8k_task, *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "a").exists()


def test_a_missing_model_is_named_before_the_tasks_are_read(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    assert run(tmp_path / "nowhere", "--tasks", "gsm8k") == 2
    assert "nowhere" in capsys.readouterr().err
    assert run(tmp_path, "--tasks", "gsm8k", "--recipe", tmp_path / "none.yaml") == 2
    assert "none.yaml" in capsys.readouterr().err


def test_without_lm_eval_it_says_what_to_install(capsys, monkeypatch, model):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run(model, "--tasks", "gsm8k") == 2
    assert 'needs lm-eval; pip install "slackdlm[harness]"' in capsys.readouterr().err


def test_other_commands_do_not_import_lm_eval():
    code = (
        "import sys; from slackdlm.cli import main\n"
        "try: main(['harness', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('lm_eval' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
