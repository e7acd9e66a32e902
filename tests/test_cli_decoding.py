"""``generate``, ``answer`` and ``chat`` as a user runs them: canvases, answers, messages and exit codes."""

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from slackdlm.cli import main

ANSWER_KEYS = set(
    "id category turn system prompt text tokens canvas forwards dose settings intervention model device "
    "seconds seed slack_share".split()
)


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_generate_writes_one_whole_row_per_question(trained: Path) -> None:
    questions = trained / "questions.jsonl"
    questions.write_text('{"question": "What is 1 plus 1?"}\n{"question": "Why?", "id": "why"}\n')
    output = trained / "answers.jsonl"
    model, given = trained / "run" / "model", ("--input", questions, "--column", "question")
    given += ("--canvas-length", 12, "--steps", 4, "--output")
    assert run("generate", model, *given, output) == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == ["0", "why"]
    for row in rows:
        assert set(row) == ANSWER_KEYS
        assert len(row["canvas"]) == 12
        assert row["forwards"] == 4
        assert row["settings"]["steps"] == 4
        assert len(row["model"]["sha256"]) == 64
    again = trained / "again.jsonl"
    assert run("generate", model, *given, again) == 0
    texts = [json.loads(line)["text"] for line in again.read_text(encoding="utf-8").splitlines()]
    assert texts == [row["text"] for row in rows], "same settings, same answers"


def test_answer_puts_both_turns_to_the_model_and_finishes_at_once_the_second_time(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = trained / "turns.jsonl"
    questions.write_text(
        '{"question_id": 81, "category": "writing", "turns": ["Say 1.", "And 2?"]}\n'
        '{"question_id": 82, "category": "math", "turns": ["1 + 1?", "Sure?"]}\n'
    )
    output = trained / "mt.jsonl"
    arguments = ["answer", trained / "run" / "model", "--questions", questions, "--output", output]
    arguments += ["--benchmark", "mt-bench", "--canvas-length", 8, "--steps", 2, "--name", "tiny"]
    assert run(*arguments) == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    turns = [(row["id"], row["turn"]) for row in rows]
    assert turns == [("81", 1), ("81", 2), ("82", 1), ("82", 2)]
    assert {row["system"] for row in rows} == {"tiny"}
    assert "4 answers" in capsys.readouterr().out
    before = output.read_bytes()
    assert run(*arguments) == 0
    assert output.read_bytes() == before


def test_answer_reports_questions_it_could_not_ask(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = trained / "long.jsonl"
    questions.write_text(json.dumps({"prompt": "x" * 5000}) + '\n{"prompt": "short"}\n')
    output = trained / "long-answers.jsonl"
    arguments = ["--questions", questions, "--output", output, "--canvas-length", 8, "--steps", 1]
    assert run("answer", trained / "run" / "model", *arguments) == 2
    assert "1 turns have no answer" in " ".join(capsys.readouterr().err.split())
    assert len(output.read_text().splitlines()) == 1


def test_generate_tells_of_an_empty_answer_beside_standard_output(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = iter(["", "words", " "])

    def decode(self: object, prompts: object, **_: object) -> list[object]:
        return [SimpleNamespace(text=next(texts))]

    monkeypatch.setattr("slackdlm.sampling.sampler.Sampler.generate", decode)
    questions = trained / "three.jsonl"
    questions.write_text('{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "c", "id": "last"}\n')
    model = trained / "run" / "model"
    assert run("generate", model, "--input", questions, "--canvas-length", 8) == 0
    out, err = capsys.readouterr()
    assert out == "\nwords\n \n"
    assert "the answer to question 0 is empty\n" in err
    assert "the answer to question last is empty\n" in err
    assert err.count("empty") == 2


def test_generate_writes_what_happened_as_a_page_and_as_data(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from slackdlm.sampling.trace import read_steps

    model, questions = trained / "run" / "model", tmp_path / "q.jsonl"
    questions.write_text('{"prompt": "What is 1 plus 1?"}\n{"prompt": "Why?", "id": "why"}\n')
    page, trace = tmp_path / "new" / "replay.html", tmp_path / "new" / "trace.jsonl"
    asked = ["--input", questions, "--canvas-length", 8, "--steps", 4]
    shift = ["--intervention", "shift", "--rate", 0.5]
    assert run("generate", model, *asked, *shift, "--replay", page, "--trace", trace) == 0
    out, err = capsys.readouterr()
    assert "replay.html" in "".join(err.split())
    assert "trace.jsonl" in "".join(err.split())
    rows = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]
    assert [(row["id"], row["prompt"]) for row in rows] == [
        ("0", "What is 1 plus 1?"),
        ("why", "Why?"),
    ]
    assert out == "".join(row["text"] + "\n" for row in rows), "texts alone"
    for row in rows:
        canvas = {c.position: c.token for step in read_steps(row) for c in step}
        assert [canvas[place] for place in range(8)] == row["canvas"]
    assert page.stat().st_size > 1000
    assert sorted(file.name for file in page.parent.iterdir()) == ["replay.html", "trace.jsonl"]


def test_a_prompt_from_standard_input_is_the_text_without_the_line_s_end(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("  x = 1\n\n"))
    trace = tmp_path / "t.jsonl"
    arguments = ("--canvas-length", 8, "--steps", 2, "--trace", trace)
    assert run("generate", trained / "run" / "model", *arguments) == 0
    assert json.loads(trace.read_text())["prompt"] == "  x = 1\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "x", "--rate", "0.1"], "intervention.kind: this key is required and missing"),
        (["--input", "missing.jsonl"], "there is no such file"),
        (["--prompt", "x", "--gen-length", "8"], "got both; give one"),
        (["--prompt", "x", "--set", "sampler.stpes=1"], "did you mean sampler.steps?"),
        (["--prompt", "x", "--first", "0"], "--first: expected at least 1, got 0"),
        (["--prompt", " "], "no prompt"),
        (["--prompt", "x", "--trace", "t.json"], "expected a name that ends in .jsonl"),
        (
            ["--prompt", "x", "--trace", "t.jsonl", "--output", "a.jsonl"],
            "--trace shows printed answers; leave --output out",
        ),
    ],
)
def test_generate_s_errors_say_what_is_wrong(
    trained: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("generate", trained / "run" / "model", "--canvas-length", 8, *arguments) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith("error:")
    assert message in error or message.replace(" ", "") in error


def canvas_lengths(file: Path) -> set[int]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert {len(row["canvas"]) for row in rows} == {
        row["settings"]["canvas_length"] for row in rows
    }
    return {len(row["canvas"]) for row in rows}


def test_chat_takes_the_canvas_of_the_training_unless_told_another(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained / "run" / "model"
    length = json.loads((model / "slackdlm.json").read_text())["canvas_length"]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run("chat", model) == 0
    assert f"canvas: {length} positions, as in training" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run("chat", model, "--gen-length", 8) == 0
    assert "canvas: 12 positions for 8 tokens" in capsys.readouterr().out


def test_the_unit_of_length_is_the_response_token(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, questions = trained / "run" / "model", tmp_path / "q.jsonl"
    questions.write_text('{"prompt": "What is 1 plus 1?"}\n')

    def answer(name: str, model: Path, *flags: object) -> set[int]:
        output = tmp_path / name
        assert run("answer", model, "--questions", questions, "--output", output, *flags) == 0
        return canvas_lengths(output)

    assert answer("a", model, "--gen-length", 8) == {12}
    shown = " ".join(capsys.readouterr().err.split())
    length = json.loads((model / "slackdlm.json").read_text())["canvas_length"]
    said = "canvas: 12 positions for 8 tokens: trained with slack up to 0.5 of them"
    assert f"{said}, on canvases of {length} positions alone (--canvas-length {length})" in shown
    assert answer("b", model, "--canvas-length", 8) == {8}
    assert "canvas: 8 positions, as asked for" in capsys.readouterr().err
    copy = tmp_path / "no slack"
    shutil.copytree(model, copy)
    record = json.loads((copy / "slackdlm.json").read_text())
    other = {"slack_ratio": [0.0, 0.0], "padding": "llada"}
    (copy / "slackdlm.json").write_text(json.dumps(record | other))
    assert answer("without", copy, "--gen-length", 8) == {8}
    shown = " ".join(capsys.readouterr().err.split())
    assert "canvas: 8 positions for 8 tokens: trained without slack" in shown
    assert "positions alone" not in shown
    copy = tmp_path / "no record"
    shutil.copytree(model, copy)
    (copy / "slackdlm.json").unlink()
    assert answer("c", copy, "--gen-length", 8) == {8}
    shown = " ".join(capsys.readouterr().err.split())
    assert "canvas: 8 positions, none for slack: the model has no record of its training" in shown
    assert run("generate", model, "--prompt", "x") == 2
    assert "give --gen-length TOKENS" in " ".join(capsys.readouterr().err.split())


def test_flags_override_the_recipe_and_set_overrides_the_file(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, questions = trained / "run" / "model", tmp_path / "q.jsonl"
    questions.write_text('{"prompt": "What is 1 plus 1?"}\n')
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "sampler: {gen_length: 8, steps: 6, delay_slack: true, temperature: 1}\n"
        "intervention: {kind: drop, rate: 0.5}\n"
    )
    flags = ["--input", questions, "--recipe", recipe]

    def row(name: str, *more: object) -> dict[str, object]:
        output = tmp_path / name
        assert run("generate", model, *flags, "--output", output, *more) == 0
        return json.loads(output.read_text(encoding="utf-8"))

    plain = row("a")
    assert plain["settings"]["canvas_length"] == 12
    assert plain["settings"]["steps"] == 6
    assert plain["settings"]["delay_slack"] is True
    assert plain["intervention"]["kind"] == "drop"
    changed = row(
        *("b", "--canvas-length", 6, "--steps", 3, "--rate", 0.25),
        *("--set", "sampler.delay_slack=false", "--set", "sampler.seed=5"),
    )
    settings = {"canvas_length": 6, "steps": 3, "delay_slack": False, "seed": 5}
    assert changed["settings"] == plain["settings"] | settings
    assert changed["intervention"] == plain["intervention"] | {"rate": 0.25, "seed": 5}
    assert run("generate", model, *flags, "--set", "sampler.step=2") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "mine.yaml: sampler.step: unknown key; did you mean sampler.steps?" in error
    assert run("generate", model, *flags, "--set", "sampler=2", "--steps", 3) == 2
    assert "sampler is a value, not a block" in " ".join(capsys.readouterr().err.split())


def test_a_missing_model_is_an_error_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", tmp_path / "nothing", "--prompt", "x", "--canvas-length", 8) == 2
    assert capsys.readouterr().err.startswith("error:")
    (tmp_path / "q.jsonl").write_text('{"prompt": "x"}\n')
    asked = ["--output", tmp_path / "out" / "a.jsonl", "--canvas-length", 8]
    (tmp_path / "empty").mkdir()
    assert run("answer", tmp_path / "empty", "--questions", tmp_path / "q.jsonl", *asked) == 2
    assert run("generate", tmp_path / "empty", "--input", tmp_path / "q.jsonl", *asked) == 2
    assert list(tmp_path.glob("out/*")) == [], "nothing is left of a run that never began"
