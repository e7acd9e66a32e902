"""The commands as a user runs them: real files, real models of toy size, messages and exit codes."""

import json
from pathlib import Path

import pytest


def run(*arguments: object) -> int:
    from slackdlm.cli import main

    return main([str(argument) for argument in arguments])


def test_the_version_is_the_package_s_and_a_source_tree_runs_without_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib.metadata import PackageNotFoundError

    import slackdlm.cli

    installed = slackdlm.cli.version("slackdlm")
    with pytest.raises(SystemExit, match="0"):
        run("--version")
    assert capsys.readouterr().out == f"slackdlm {installed}\n"

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(slackdlm.cli, "version", missing)
    with pytest.raises(SystemExit) as stopped:
        run("--version")
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: slackdlm is on the path but not installed")
    with pytest.raises(SystemExit) as stopped:
        run("train", "--help")
    assert stopped.value.code == 0


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    assert "talk to a model and watch its canvas resolve" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--quick"]])
def test_a_quick_demo_leaves_what_means_nothing_to_its_report(
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run_demo(*_: object, output: Path, **__: object) -> Path:
        results = {"warnings": ["mind this"], "summary": ["found that"]}
        (output / "results.json").write_text(json.dumps(results))
        return output / "report.html"

    monkeypatch.setattr("slackdlm.study.demo.run_demo", run_demo)
    assert run("demo", *flags, "--output", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "mind this" in shown
    assert ("found that" in shown) == (not flags)


def test_train_writes_model_log_and_record(trained: Path) -> None:
    record = json.loads((trained / "run" / "run.json").read_text())
    assert record["status"] == "finished"
    assert (trained / "run" / "model" / "model.safetensors").exists()
    losses = [json.loads(line) for line in (trained / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in losses if "loss" in row] == [1, 2, 3]


def test_resuming_a_finished_run_says_so_and_shows_its_result(
    trained: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = (trained / "run" / "run.json").read_bytes()
    assert run("train", trained / "toy.yaml", "--output", trained / "run", "--resume") == 0
    assert f"{trained / 'run'}: the run is finished already; nothing is trained" in caplog.text
    shown = capsys.readouterr().out
    assert "toy: 3 steps" in shown
    assert "mean training loss (nats per position)" in shown  # of all steps, not of the last 50
    assert (trained / "run" / "run.json").read_bytes() == before


def test_train_shows_samples_without_obeying_them(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "evil.jsonl"
    row = {"question": "[bold]who[/bold] \x1b[31mred", "answer": "\x1b]0;title\x07 [/] yes"}
    data.write_text((json.dumps(row) + "\n") * 12, encoding="utf-8")
    options = ["--set", f"data.train={data}", "--set", "data.max_prompt_length=90"]
    assert run("train", trained / "toy.yaml", *options, "--show", 2) == 0
    shown = capsys.readouterr().out
    assert shown.count("target") == 3
    assert "    chat the tokenizer's own chat template\n" in shown
    assert "\x1b]0;" not in shown
    assert "\\x1b[31mred" in shown
    assert "[bold]who[/bold]" in shown
    assert run("train", trained / "toy.yaml", "--show", 0) == 2
    capsys.readouterr()
    data.write_text('{"text": "a"}\n' * 12)
    assert run("train", trained / "toy.yaml", *options, "--show", 2) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "evil.jsonl:1: expected text in column 'question'; the columns are 'text'" in shown.err


def test_train_plans_memory(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", trained / "toy.yaml", "--plan", "--memory", 1) == 0
    shown = capsys.readouterr().out
    assert "activations" in shown
    assert "1 process x 2 samples x 96 positions" in shown
    assert (
        "assumed, since the data is not read: the most that the recipe allows, prompts of 64 tokens,"
        " canvases of 32 positions, slack of 0.5 times the response, a vocabulary of 300 tokens, every"
        " position masked; on a"
    ) in " ".join(shown.split())
    assert (
        "largest training.micro_batch_size in 1 GB: 2, a process's whole share of training.batch_size"
    ) in " ".join(shown.split())
    assert run("train", trained / "toy.yaml", "--plan", "--memory", 1e-6) == 0
    assert "not even one sample fits" in capsys.readouterr().out
    for wrong in (["--memory", "-1"], ["--processes", "0"]):
        assert run("train", trained / "toy.yaml", "--plan", *wrong) == 2
        assert wrong[0] in capsys.readouterr().err


def test_train_s_bad_input_is_one_clear_error(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latin, blocked = tmp_path / "latin.yaml", tmp_path / "file"
    latin.write_bytes(b"model: \xe9")
    blocked.write_text("")
    for arguments, message in (
        ([latin], "expected UTF-8 text"),
        ([tmp_path], "cannot be read"),
        ([trained / "toy.yaml", "--output", blocked / "run"], "file/run: cannot be written (/"),
    ):
        assert run("train", *arguments, "--quiet") == 2
        assert message in " ".join(capsys.readouterr().err.split())
