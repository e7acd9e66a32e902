"""The commands as a user runs them: real files, real models of toy size, messages and exit codes."""

import io
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

TRAIN_RECIPE = """
model:
  from_scratch: {{tokenizer_kind: byte_bpe, vocab_size: 300, d_model: 16, n_layers: 1, n_heads: 2, mlp_hidden_size: 32}}
data: {{train: {train}, columns: {{prompt: question, response: answer}}, max_prompt_length: 64, canvas_length: 32}}
objective: {{kind: slack_ctc, slack_ratio: [0.0, 0.5]}}
training: {{steps: 3, batch_size: 2, eval_samples: 2, eval_every: 3, save_every: 0}}
"""


ANSWER_KEYS = set(
    "id category turn system prompt text tokens canvas forwards dose settings intervention model device "
    "seconds seed slack_share".split()
)


def run(*arguments: object) -> int:
    from slackdlm.cli import main

    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder made by the train command."""
    folder = tmp_path_factory.mktemp("cli")
    rows = [{"question": f"What is {n} plus 1?", "answer": f"{n + 1}"} for n in range(12)]
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = folder / "toy.yaml"
    recipe.write_text(TRAIN_RECIPE.format(train=data), encoding="utf-8")
    assert run("train", recipe, "--output", folder / "run", "--quiet") == 0
    return folder


def test_a_source_tree_that_is_not_installed_runs_and_has_no_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib.metadata import PackageNotFoundError

    import slackdlm.cli

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


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    with pytest.raises(SystemExit) as exit_:
        run("--version")
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"slackdlm {version('slackdlm')}\n"


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


def test_a_second_run_into_the_same_folder_is_refused(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", trained / "toy.yaml", "--output", trained / "run", "--quiet") == 2
    assert "resume" in capsys.readouterr().err


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


def test_a_misspelt_key_is_named_with_a_suggestion(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", trained / "toy.yaml", "--set", "training.step=5", "--quiet") == 2
    assert "did you mean training.steps?" in " ".join(capsys.readouterr().err.split())


def test_generate_writes_one_whole_row_per_question(trained: Path) -> None:
    questions = trained / "questions.jsonl"
    questions.write_text('{"question": "What is 1 plus 1?"}\n{"question": "Why?", "id": "why"}\n')
    output = trained / "answers.jsonl"
    arguments = [
        "--input",
        questions,
        "--column",
        "question",
        "--output",
        output,
        "--canvas-length",
        12,
        "--steps",
        4,
    ]
    assert run("generate", trained / "run" / "model", *arguments) == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == ["0", "why"]
    for row in rows:
        assert set(row) == ANSWER_KEYS
        assert len(row["canvas"]) == 12
        assert row["forwards"] == 4
        assert row["settings"]["steps"] == 4
        assert len(row["model"]["sha256"]) == 64
    again = trained / "again.jsonl"
    assert run("generate", trained / "run" / "model", *arguments[:5], again, *arguments[6:]) == 0
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
    assert [(row["id"], row["turn"]) for row in rows] == [
        ("81", 1),
        ("81", 2),
        ("82", 1),
        ("82", 2),
    ]
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


def test_generate_prints_an_answer_to_a_prompt(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained / "run" / "model"
    assert run("generate", model, "--prompt", "What is 2 plus 1?", "--canvas-length", 8) == 0
    assert capsys.readouterr().out


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
        (
            ["--prompt", "x", "--intervention", "shift", "--rate", "1.5"],
            "intervention.rate: expected at most 1, got 1.5",
        ),
        (["--input", "missing.jsonl"], "there is no such file"),
        (["--prompt", "x", "--gen-length", "8"], "got both; give one"),
        (["--prompt", "x", "--seed", "-1"], "sampler.seed: expected at least 0, got -1"),
        (["--prompt", "x", "--set", "sampler.stpes=1"], "did you mean sampler.steps?"),
        (["--prompt", "x", "--recipe", "none.yaml"], "there is no such recipe file"),
        (["--prompt", "x", "--first", "0"], "--first: expected at least 1, got 0"),
        (["--prompt", "x", "--output", "/dev/null/answers.jsonl"], "cannot be written"),
        (["--prompt", " "], "no prompt"),
        (["--prompt", "x", "--trace", "t.json"], "expected a name that ends in .jsonl"),
        (["--prompt", "x", "--trace", "/dev/null/t.jsonl"], "--trace /dev/null/t.jsonl: cannot be"),
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
    assert changed["settings"] == plain["settings"] | {
        "canvas_length": 6,
        "steps": 3,
        "delay_slack": False,
        "seed": 5,
    }
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


def test_model_text_cannot_drive_the_terminal() -> None:
    from slackdlm.terminal import printable

    shown = printable("\x1b[31mred[/bold]\x07 caf\u00e9\n\u202eevil 1\u00a0000 km").plain
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "[/bold]" in shown
    assert "café\n" in shown
    assert "1\u00a0000 km" in shown


def test_a_line_separator_inside_a_question_does_not_split_it(tmp_path: Path) -> None:
    from slackdlm.benchmarks.answers import read_questions

    file = tmp_path / "questions.jsonl"
    text = "one\u2028two\u0085three"
    file.write_text(json.dumps({"prompt": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert [question.prompt for question in read_questions(file)] == [text]


def test_compare_writes_tables_and_refuses_half_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judgments = Path(__file__).parent / "data" / "arena_hard" / "v0.1_judgments.jsonl"
    report = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    assert run("compare", judgments, "--output", report, "--resamples", 200, "--power") == 0
    shown = capsys.readouterr().out
    assert "arena-hard" in shown
    assert "power" in shown
    assert sorted(file.name for file in report.iterdir()) == [
        f"comparison.{kind}" for kind in ("html", "json", "md", "tex")
    ]
    assert run("compare", "--power", "--questions", 500, "--spread", 0.4) == 0
    assert "0.050" in capsys.readouterr().out
    for flags, message in (
        (["--power", "--questions", 500], "give both"),
        (["--power", "--questions", 500, "--spread", 0.4, "--output", report], "has no effect"),
        ([], "give judgment files"),
        ([judgments, "--style-control"], "give --answers"),
        (["--style-control", judgments], "there is no covariate"),
        ([judgments, "--style-control", "bold", "bold"], "bold is named twice"),
        ([judgments, "--alpha", 2], "alpha"),
        ([judgments, "--resamples", 1], "num_resamples"),
        ([tmp_path / "none.jsonl"], "no such file"),
        ([tmp_path / "empty"], "no file of judgments in this folder"),
    ):
        assert run("compare", *flags) == 2
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("scores", [[1.0], [1.0] * 6, [None, None]], ids=["one", "alike", "none"])
def test_power_of_a_pilot_without_spread_is_said_to_be_unknown(
    scores: list[float | None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from slackdlm.judgments import Game, write_judgments

    file = tmp_path / "j.jsonl"
    write_judgments(
        file,
        [Game(f"q{n}", "a", "b", 0, s, None, "failed" if s is None else "ok", None, {"judge": "m"})
         for n, s in enumerate(scores)],
    )  # fmt: skip
    assert run("compare", file, "--power", "--resamples", 200) == (2 if None in scores else 0)
    assert "no spread: fewer than two questions, or all alike" in capsys.readouterr().out


def test_report_of_another_command_s_results_says_whose_they_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "comparison.json").write_text('{"lines": [], "judges": []}')
    assert run("report", tmp_path / "comparison.json") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "holds no results of slackdlm demo; compare and probe write their own pages" in error


def test_compare_of_judgments_without_any_score_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from slackdlm.judgments import Game, write_judgments

    file = tmp_path / "j.jsonl"
    game = Game("q", "a", "b", 0, None, None, "failed", None, {"judge": "m"})
    write_judgments(file, [game])
    assert run("compare", file, "--resamples", 200) == 2
    assert "no judgment has a score" in capsys.readouterr().err


def test_compare_shows_scales_style_and_the_judge_in_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(__file__).parent / "data"
    assert run("compare", data / "mt_bench" / "judgments.jsonl", "--resamples", 200) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "n counts questions: each one's score is the mean of its turns" in shown
    assert "judgments scored;" in shown
    grades = tmp_path / "wb.json"
    grades.write_text(json.dumps([{"session_id": "s", "score": "7", "model_test": "m"}]))
    assert run("compare", grades, "--resamples", 200) == 0
    assert "(grade − 5) × 20: from −80 to 100" in " ".join(capsys.readouterr().out.split())
    games = data / "arena_hard" / "v0.1_judgments.jsonl"
    rows = [json.loads(line) for line in games.read_text().splitlines()]
    answers = tmp_path / "answers.jsonl"
    shown_answer = re.compile(
        r"<\|The Start of Assistant [AB]'s Answer\|>\n(.*?)\n<\|The End", re.S
    )
    answers.write_text(
        "".join(
            json.dumps({"id": row["question_id"], "turn": 1, "system": system, "text": text}) + "\n"
            for row in rows
            for system, text in zip(
                ("baseline", row["model"]),
                shown_answer.findall(row["games"][0]["user_prompt"]),
                strict=True,
            )
        )
    )
    flags = ["--answers", answers, "--style-control", "length", "--resamples", 200]
    assert run("compare", games, *flags) == 0
    assert "At equal style" in " ".join(capsys.readouterr().out.split())


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
        (
            [trained / "toy.yaml", "--set", "training.seed=-1"],
            "training.seed: expected at least 0, got -1",
        ),
    ):
        assert run("train", *arguments, "--quiet") == 2
        assert message in " ".join(capsys.readouterr().err.split())
