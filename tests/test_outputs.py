import json
from pathlib import Path

import pytest

from slackdlm.cli import main
from slackdlm.study.toy_language import write_tasks


@pytest.fixture
def model(toy_folder: Path) -> Path:
    return toy_folder


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "questions.jsonl"
    lines = [json.dumps({"prompt": task.prompt}) + "\n" for task in write_tasks(2, seed=5)]
    file.write_text("".join(lines), encoding="utf-8")
    return file


def run(capsys, *words: object) -> str:
    """The error of a command that must fail with one."""
    assert main([str(word) for word in words]) == 2
    return " ".join(capsys.readouterr().err.split())


def files(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("command", ["answer", "generate", "judge"])
def test_no_command_replaces_a_file_it_reads(capsys, tmp_path, model, questions, command):
    words = {
        "answer": ("answer", model, "--questions", questions, "--canvas-length", 8),
        "generate": ("generate", model, "--input", questions, "--canvas-length", 8),
        "judge": (
            *("judge", "--benchmark", "pairs", "--questions", questions, "--answers", questions),
            *("--baseline", questions, "--judge", "toy"),
        ),
    }[command]
    before = files(tmp_path)
    assert "would replace another of the files given" in run(capsys, *words, "--output", questions)
    assert files(tmp_path) == before


def test_another_name_of_a_file_is_that_file(capsys, tmp_path, model, questions):
    (tmp_path / "other.jsonl").hardlink_to(questions)
    words = (
        *("answer", model, "--questions", questions, "--canvas-length", 8),
        *("--output", tmp_path / "other.jsonl"),
    )
    assert "would replace another of the files given" in run(capsys, *words)


def test_answers_replace_no_file_that_answers_did_not_make(capsys, tmp_path, model, questions):
    other = tmp_path / "other.jsonl"
    other.write_text("precious", encoding="utf-8")
    words = ("answer", model, "--questions", questions, "--canvas-length", 8, "--output", other)
    assert "other.jsonl.journal beside it, which made it, does not" in run(capsys, *words)
    assert other.read_text(encoding="utf-8") == "precious"


def test_a_trace_replaces_no_file_that_is_read(capsys, tmp_path, model, questions):
    words = ("generate", model, "--input", questions, "--canvas-length", 8, "--trace", questions)
    before = files(tmp_path)
    assert "would replace another of the files given" in run(capsys, *words)
    assert files(tmp_path) == before


@pytest.mark.parametrize("place", ["folder", "other.txt"])
def test_a_replay_is_a_page_that_replaces_nothing_else(capsys, tmp_path, model, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.html").mkdir()
    prompt = write_tasks(1, seed=5)[0].prompt
    words = ("generate", model, "--prompt", prompt, "--canvas-length", 8, "--replay")
    assert "expected a name that ends in .html" in run(capsys, *words, tmp_path / place)
    assert "cannot be written (it is a folder)" in run(capsys, *words, tmp_path / "folder.html")
    assert files(tmp_path) == {}


def test_an_output_folder_that_is_a_file_is_named(capsys, tmp_path, model, questions):
    probe = ("probe", "--arm", f"a={model}", "--questions", questions, "--judge", "toy")
    message = f"--output {questions}: cannot be written ({questions} is no folder)"
    assert message in run(capsys, *probe, "--canvas-length", 8, "--output", questions)
    assert message in run(capsys, "demo", "--quick", "--output", questions)


PLACES = {
    "answer": ("answer", "MODEL", "--questions", "QUESTIONS", "--canvas-length", 8, "--output"),
    "answer for a benchmark": (
        *("answer", "MODEL", "--questions", "MT-BENCH", "--benchmark", "mt-bench"),
        *("--canvas-length", 8, "--output", "FREE", "--export"),
    ),
    "generate": ("generate", "MODEL", "--prompt", "x", "--canvas-length", 8, "--output"),
    "trace": ("generate", "MODEL", "--prompt", "x", "--canvas-length", 8, "--trace"),
    "judge": (
        *("judge", "--benchmark", "pairs", "--questions", "QUESTIONS", "--answers", "QUESTIONS"),
        *("--baseline", "QUESTIONS", "--judge", "toy", "--output"),
    ),
    "journal": (
        *("judge", "--benchmark", "pairs", "--questions", "QUESTIONS", "--answers", "QUESTIONS"),
        *("--baseline", "QUESTIONS", "--judge", "toy", "--output", "FREE", "--journal"),
    ),
    "compare": ("compare", "none.jsonl", "--output"),
    "probe": (
        *("probe", "--arm", "a=MODEL", "--questions", "QUESTIONS", "--judge", "toy"),
        *("--canvas-length", 8, "--output"),
    ),
    "harness": ("harness", "MODEL", "--tasks", "none", "--output"),
    "harness journal": ("harness", "MODEL", "--tasks", "none", "--journal"),
    "demo": ("demo", "--output"),
}


@pytest.mark.parametrize("command", PLACES)
def test_an_output_that_cannot_be_written_is_an_error_before_any_work(
    capsys, monkeypatch, tmp_path, model, questions, command
):
    if command.startswith("harness"):
        pytest.importorskip("lm_eval")
    given = {
        **{"QUESTIONS": str(questions), "MODEL": str(model), "a=MODEL": f"a={model}"},
        "MT-BENCH": str(Path(__file__).parent / "data" / "mt_bench" / "questions.jsonl"),
        "FREE": str(tmp_path / "deep" / "free.jsonl"),
    }
    words = [given.get(str(word), word) for word in PLACES[command]]
    monkeypatch.setattr("slackdlm.models.loading.load_model", None)
    before = sorted(tmp_path.rglob("*"))
    output = tmp_path / "questions.jsonl" / "below" / "out.jsonl"
    message = f"{words[-1]} {output}: cannot be written ({questions} is no folder)"
    assert message in run(capsys, *words, output)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_check_makes_nothing_where_another_flag_is_wrong(capsys, tmp_path, model, questions):
    words = ("answer", model, "--questions", questions, "--canvas-length", 8, "--device", "banana")
    before = sorted(tmp_path.rglob("*"))
    assert "device: unknown" in run(capsys, *words, "--output", tmp_path / "deep" / "a.jsonl")
    assert sorted(tmp_path.rglob("*")) == before


def test_two_outputs_are_two_files_before_either_is_there(capsys, tmp_path, questions):
    words = (
        *("judge", "--benchmark", "pairs", "--questions", questions, "--answers", questions),
        *("--baseline", questions, "--judge", "toy", "--output", tmp_path / "j.jsonl", "--journal"),
    )
    same = tmp_path / "deep" / ".." / "j.jsonl"
    assert f"--journal {same}: would replace another" in run(capsys, *words, same)


@pytest.mark.parametrize(
    ("device", "message"), [("banana", "device: unknown"), ("cuda", "finds no CUDA device")]
)
def test_a_device_that_is_not_there_is_named(capsys, tmp_path, model, questions, device, message):
    words = ("answer", model, "--questions", questions, "--canvas-length", 8, "--device", device)
    assert message in run(capsys, *words, "--output", tmp_path / "a.jsonl")


def test_a_folder_is_no_missing_file_and_a_canvas_can_be_too_long(capsys, tmp_path, model):
    words = ("generate", model, "--canvas-length", 8, "--input", tmp_path)
    assert "it is a folder" in run(capsys, *words)
    long = ("generate", model, "--prompt", "tell", "--canvas-length", 500)
    assert "leaves no room for a prompt" in run(capsys, *long)
