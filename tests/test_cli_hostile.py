"""Commands under bad circumstances: flags that would be ignored, full disks, closed pipes, poor terminals."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_commands import attempt_command, commands, write_inputs
from hostile_kinds import RECIPE, as_jsonl, result_kinds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slackdlm.cli import main
from slackdlm.training.model_config import SMALLEST_VOCABULARY

SOURCE = Path(__file__).parents[1] / "src"


@pytest.fixture
def model(toy_folder: Path) -> Path:
    return toy_folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    rows = [{"question": f"What is {n} plus 1?", "answer": f"{n + 1}"} for n in range(80)]
    (tmp_path / "train.jsonl").write_bytes(as_jsonl(rows))
    file = tmp_path / "toy.yaml"
    file.write_bytes(RECIPE.replace(b"train.jsonl", str(tmp_path / "train.jsonl").encode()))
    return file


@pytest.fixture
def results(tmp_path: Path) -> Path:
    file = tmp_path / "results.json"
    file.write_bytes(result_kinds()[0].content)
    return file


def error(capsys, *words: object) -> str:
    """The error of a command that must fail with one and print nothing else."""
    assert main([str(word) for word in words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("error: ") == 1
    return " ".join(shown.err.split())


def start(*words: object, **environment: str) -> "subprocess.Popen[bytes]":
    """A command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "slackdlm.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--plan", "--show", 1), "--plan, --show: each prints something and stops"),
        (("--memory", 8), "--memory: has no effect without --plan"),
        (("--processes", 2), "--processes: has no effect without --plan"),
        (("--sharded", "--show", 1), "--sharded: has no effect without --plan"),
        (("--plan", "--resume"), "--resume: has no effect beside --plan"),
        (("--show", 1, "--output", "x"), "--output: has no effect beside --show"),
        (("--plan", "--set", "model.from_scratch.vocab_size=64"), "byte_bpe needs at least 263"),
        (("--plan", "--set", "training.learning_rate=.inf"), "expected a finite number, got inf"),
        (("--set", "data.train=none.jsonl"), "none.jsonl: there is no such data file"),
        (("--set", "model={path: ./none}"), "none: expected a checkpoint folder, found none"),
    ],
)
def test_train_refuses_what_it_would_ignore_or_not_find(capsys, recipe, flags, message):
    assert message in error(capsys, "train", recipe, *flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--first", 2), "--first: has no effect without --input"),
        (("--column", "text"), "--column: has no effect without --input"),
        (("--set", "judge.seed=1"), "judge: unknown key"),
    ],
)
def test_generate_refuses_flags_that_would_be_ignored(capsys, model, flags, message):
    words = ("generate", model, "--prompt", "tell", "--canvas-length", 8)
    assert message in error(capsys, *words, *flags)


@pytest.mark.parametrize("kind", SMALLEST_VOCABULARY)
def test_the_smallest_vocabulary_is_the_tokenizer_s_own(kind):
    from slackdlm.errors import ConfigError
    from slackdlm.models.tokenizer import train_tokenizer

    least = SMALLEST_VOCABULARY[kind]
    assert len(train_tokenizer(["a b"], vocab_size=least, kind=kind)) <= least
    with pytest.raises(ConfigError, match=f"at least {least}"):
        train_tokenizer(["a b"], vocab_size=least - 1, kind=kind)


@pytest.mark.parametrize(
    "words",
    [
        ("train", "none.yaml"),
        ("generate", "./none", "--prompt", "x", "--canvas-length", "8"),
        ("answer", "./none", "--questions", "q", "--output", "o", "--canvas-length", "8"),
        ("chat", "./none"),
        ("probe", "--arm", "a=./none", "--questions", "none.jsonl", "--output", "o", "--judge", "toy"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_before_anything_slow_is_imported(words):
    code = (
        "import sys; from slackdlm.cli import main; code = main(sys.argv[1:]);"
        "print(code, sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert done.stdout == "2 []\n", done.stderr
    assert done.stderr.startswith("error: ")


def test_the_hub_out_of_reach_is_one_short_message(capsys, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    words = ("generate", "nobody/nothing", "--prompt", "x", "--canvas-length", 8)
    message = error(capsys, *words)
    assert "nobody/nothing: there is no such folder, and the hub did not give it" in message
    assert "check the name and the network, or give a folder" in message
    assert len(message) < 300


def test_a_full_disk_is_one_message_and_leaves_no_half_of_a_file(
    capsys, monkeypatch, tmp_path, results
):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = error(capsys, "report", results, "--output", tmp_path / "out")
    assert f"{tmp_path / 'out'}/" in message
    assert "No space left on device" in message
    assert [file for file in (tmp_path / "out").rglob("*") if file.is_file()] == []


def test_escapes_of_a_file_do_not_reach_the_terminal_by_an_error(capsys, tmp_path):
    file = tmp_path / "\x1b[31mred.yaml"
    message = error(capsys, "train", file)
    assert "\x1b" not in message
    assert "\\x1b[31mred.yaml" in message


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"COLUMNS": "40", "NO_COLOR": "1"}]
)
def test_poor_terminals_get_all_the_text(tmp_path, environment):
    run = start("train", tmp_path / "a-recipe-called-caf\u00e9.yaml", **environment)
    out, err = run.communicate(timeout=100)
    assert (run.returncode, out) == (2, b"")
    name = "caf\\xe9" if "PYTHONIOENCODING" in environment else "caf\u00e9"
    assert err.decode().endswith(f"a-recipe-called-{name}.yaml: there is no such recipe file\n")
    assert b"\x1b" not in err


def test_a_reader_that_has_seen_enough_ends_the_command_quietly():
    run = start("compare", "--power", "--questions", 500, "--spread", 0.4)
    run.stdout.close()
    told = run.stderr.read()
    run.stderr.close()
    assert run.wait(timeout=100) in (0, 1, 141)
    assert b"Traceback" not in told


@pytest.mark.slow
def test_an_interrupted_training_says_so_on_one_line(recipe, tmp_path):
    output = tmp_path / "run"
    run = start(
        "train", recipe, "--output", output, "--set", "training.steps=100000", "--set",
        "training.eval_samples=2", "--quiet",
    )  # fmt: skip
    log = output / "log.jsonl"
    for _ in range(600):
        if log.exists() and log.stat().st_size:
            break
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert err.decode().splitlines()[-1] == (
        "interrupted; the same command with --resume goes on from the last checkpoint"
    )
    assert b"Traceback" not in err
    assert json.loads((output / "run.json").read_text())["status"] == "running"
    assert not (output / "model").exists()


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_flags_end_in_success_or_one_message(data, hostile):
    attempt_command(data.draw(commands(hostile)))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("commands")
    before = Path.cwd()
    os.chdir(folder)
    yield write_inputs(folder)
    os.chdir(before)


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("generate", "m", "--stps", "3"), "did you mean --steps?"),
        (("answer", "m", "--guidance", "2"), "it is a setting: --set sampler.guidance=VALUE"),
        (("judge", "--judge-top-p", "1"), "it is a setting: --set judge.top_p=VALUE"),
        (("report", "--guidance", "2"), "--help lists what there is"),
    ],
)
def test_a_flag_that_there_is_none_of_is_answered_with_what_to_write(capsys, words, advice):
    needed = {"answer": ("--questions", "q", "--output", "o"), "report": ("r",)}.get(words[0], ())
    if words[0] == "judge":
        needed = ("--benchmark", "pairs", "--questions", "q", "--answers", "a", "--output", "o")
        needed += ("--judge", "toy")
    with pytest.raises(SystemExit) as left:
        main([*words, *needed])
    assert left.value.code == 2
    assert advice in capsys.readouterr().err


def test_a_judge_and_its_settings_come_from_a_file():
    from slackdlm.judging.config import load_judge

    recipes = Path(__file__).parents[1] / "recipes"
    config = load_judge(str(recipes / "judge-openai.yaml"), ["judge.model=m", "judge.top_p=0.5"])
    assert (config.kind, config.model, config.top_p) == ("openai", "m", 0.5)
    assert load_judge(str(recipes / "judge-local.yaml"), ["judge.device=cpu"]).device == "cpu"
