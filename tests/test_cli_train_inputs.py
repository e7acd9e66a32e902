"""What ``slackdlm train`` says to bad data, models and folders: one error, exit 2, nothing left behind."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slackdlm.cli import main

GOOD = {"prompt": "What is 1 plus 1?", "response": "2"}
RECIPE = """
model: {from_scratch: {vocab_size: 300, d_model: 16, n_layers: 1, n_heads: 2, mlp_hidden_size: 32}}
data: {train: d.jsonl, max_prompt_length: 48, canvas_length: 16}
objective: {kind: slack_ctc, slack_ratio: [0.0, 0.5]}
training: {steps: 4, batch_size: 2, eval_samples: 2, eval_every: 2, save_every: 2}
"""


def turns(*pairs: tuple[str, str]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a recipe and good data."""
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(RECIPE)
    write(GOOD)
    return tmp_path


def write(row: object, *, number: int = 12) -> None:
    Path("d.jsonl").write_text((json.dumps(row) + "\n") * number)


@pytest.fixture
def error(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The only error of a training that must fail and leave no folder."""

    def attempt(*words: str, output: str = "out") -> str:
        assert main(["train", "r.yaml", "--quiet", "--output", output, *words]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.count("error: ") == 1
        assert output != "out" or not Path("out").exists()
        return " ".join(shown.err.split())

    return attempt


def options(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"text": "a"},
            r"d.jsonl:1: expected turns in 'messages', .*; the columns are 'text'; set data.columns$",
        ),
        (
            {"prompt": "a", "response": ""},
            r"train: 10 of 10 samples left out: 10 cannot be used, messages\[1\]: the content is empty;"
            r" .* \(d.jsonl:1, d.jsonl:2, d.jsonl:3, d.jsonl:4, d.jsonl:5, and 5 more\). None is left",
        ),
        (
            turns(("user", "hi")),
            "expected an assistant message to learn from, got none .* None is left",
        ),
        (
            turns(("user", "a"), ("bot", "b")),
            r"messages\[1\]: unknown role 'bot'; use 'system', 'user' or",
        ),
        ({"messages": []}, "messages: expected at least one message, got none"),
        (
            {"prompt": "long " * 50, "response": "2"},
            r"10 prompts above 48 tokens, longest \d+ \(d.jsonl:1, .*None is left; raise data.max_prompt",
        ),
        (
            {"prompt": "a", "response": "long " * 50},
            r"10 responses above 16 tokens, longest \d+ .*None is left; raise data.canvas_length$",
        ),
        (
            {"prompt": "\ud800", "response": "2"},
            r"messages\[0\]: text: expected valid Unicode, got",
        ),
    ],
)
def test_rows_that_cannot_be_trained_on(
    error: Callable[..., str], row: object, message: str
) -> None:
    write(row)
    assert re.search(message, error())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.train=no.jsonl"], "no.jsonl: there is no such data file; give a .jsonl"),
        (["data.eval=no.jsonl"], "no.jsonl: there is no such data file; give a .jsonl"),
        (
            ["data.columns.prompt=q"],
            "expected text in column 'q'; the columns are 'prompt', 'response'; set data.columns=null",
        ),
        (
            ["data.columns.messages=turns"],
            "d.jsonl:1: expected a list of turns in 'turns'; the columns",
        ),
        (["data.split=validation"], "data.split: d.jsonl is a file, which has no splits"),
        (["training.eval_samples=12"], "holds out 12 of 12 dialogues and leaves none to train on"),
        (
            ["training.micro_batch_size=3"],
            "batch_size: 2 is not a multiple of micro_batch_size x processes",
        ),
        (["data.canvas_length=0"], "r.yaml: data.canvas_length: expected at least 1"),
        (["model={path: ./none}"], "./none: expected a checkpoint folder, found none"),
        (
            ["model={path: ./made, adapter: ./none}"],
            "./none: expected a checkpoint folder, found none",
        ),
        (
            ["model={path: ./made, adapter: ./made}"],
            "made/adapter_config.json: missing; this is a model",
        ),
        (
            ["model={path: ./made}", "data.canvas_length=999"],
            "1047 positions, but ./made takes at most 64",
        ),
        (
            ["model={path: ./made, lora: {target_modules: [q_prjo]}}"],
            "called 'q_prjo'; did you mean q_proj?",
        ),
    ],
)
def test_settings_that_fit_neither_data_nor_model(
    error: Callable[..., str], folder: Path, settings: list[str], message: str
) -> None:
    from arms import small_model, small_tokenizer

    from slackdlm.models.loading import save_model

    if "made" in settings[0]:
        save_model(small_model(small_tokenizer()), folder / "made")
        Path("d.jsonl").write_text(json.dumps({"prompt": "w1", "response": "w2"}) + "\n")
        settings = [*settings, "training.eval_samples=0"]
    assert message in error(*options(*settings))


@pytest.fixture
def finished(folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["train", "r.yaml", "--quiet", "--output", "run"]) == 0
    capsys.readouterr()
    return folder / "run"


def test_folders_a_run_cannot_go_to_or_on_in(error: Callable[..., str], finished: Path) -> None:
    again = ["--resume"]
    assert "run: holds a run already; resume it, delete it or choose another" in error(output="run")
    assert "out: there is no run to resume (run.json is missing)" in error(*again)
    other = error(*again, *options("training.seed=1"), output="run")
    assert (
        "these differ: training.seed (was 0, now 1); resume with the recipe and data that" in other
    )
    write(GOOD | {"response": "3"})
    assert "these differ: samples.eval_sha256 (was" in error(*again, output="run")
    (finished / "run.json").write_text("{")
    assert "run.json: not the record of a run" in error(*again, output="run")


def test_a_run_goes_on_with_the_same_data_elsewhere(
    finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path("d.jsonl").rename("moved.jsonl")
    words = ["train", "r.yaml", "--quiet", "--output", "run", "--resume"]
    words += ["--set", "data.train=moved.jsonl"]
    said = "run: resumed with data.train (was 'd.jsonl', now 'moved.jsonl')"
    assert main(words) == 0
    assert said not in caplog.messages  # nothing is: the run is finished
    record = json.loads((finished / "run.json").read_text())
    del record["result"]
    (finished / "run.json").write_text(json.dumps(record | {"status": "running"}))
    assert main(words) == 0
    assert said in caplog.messages


def test_a_run_whose_only_checkpoint_is_damaged(error: Callable[..., str], finished: Path) -> None:
    record = json.loads((finished / "run.json").read_text())
    del record["result"]
    (finished / "run.json").write_text(json.dumps(record | {"status": "running"}))
    shutil.rmtree(finished / "checkpoints" / "checkpoint-4")
    optimizer = finished / "checkpoints" / "checkpoint-2" / "optimizer.pt"
    optimizer.write_bytes(b"x" * optimizer.stat().st_size)
    said = error("--resume", output="run")
    assert "checkpoint-2: cannot be loaded (" in said
    assert "remove this folder, and the run resumes from the checkpoint before it" in said


ALPACA = {"instruction": "Sort.", "input": "3 1", "output": "1 3"}


@pytest.mark.parametrize(
    ("settings", "said", "prompt"),
    [
        ([], "train: 12 rows read as alpaca: instruction, output, input", "Sort.\n3 1"),
        (
            ["data.columns.prompt=instruction", "data.columns.response=output"],
            "train: 12 rows read as prompt_response: instruction, output; columns not used: input;"
            " data.columns=null reads input",
            "Sort.<",
        ),
    ],
)
@pytest.mark.usefixtures("folder")
def test_show_says_what_the_rows_were_read_as(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    settings: list[str],
    said: str,
    prompt: str,
) -> None:
    write(ALPACA)
    assert main(["train", "r.yaml", "--show", "1", *options(*settings)]) == 0
    assert said in caplog.messages
    assert prompt in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_a_path_with_a_hash_is_the_file_of_that_name(capsys: pytest.CaptureFixture[str]) -> None:
    for name, response in (("run", "old"), ("run #2", "new")):
        Path(name).mkdir()
        row = json.dumps(GOOD | {"response": response}) + "\n"
        (Path(name) / "train.jsonl").write_text(row * 12)
    assert main(["train", "r.yaml", "--show", "1", *options("data.train=run #2/train.jsonl")]) == 0
    assert "target new" in capsys.readouterr().out
    assert main(["train", "r.yaml", "--show", "1", *options("data.train=")]) == 2
    assert "--set data.train=: there is no value" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["data.split=dev", "data.subset=main"])
def test_a_part_of_what_has_none_is_refused(error: Callable[..., str], key: str) -> None:
    from datasets import Dataset

    assert re.search(r"d.jsonl is a file, which has no (splits|subsets)", error(*options(key)))
    Dataset.from_list([GOOD] * 12).save_to_disk("saved")
    said = error(*options(key, "data.train=saved"))
    assert re.search(r"saved is a data set on disk, which has no (splits|subsets)", said)
