"""On a machine with GPUs the commands that may use one do, each process its own."""

from pathlib import Path

import pytest
import torch

from slackdlm.cli import main
from slackdlm.errors import ConfigError


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("command", ["generate", "answer", "chat", "harness", "probe"])
@pytest.mark.parametrize(
    ("rank", "flags", "device"),
    [(None, [], "cuda:0"), ("3", [], "cuda:1"), ("1", ["--device", "cpu"], "cpu")],
)
@pytest.mark.usefixtures("two_gpus")
def test_each_process_takes_its_own_gpu_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
    toy_folder: Path,
    tmp_path: Path,
    command: str,
    rank: str | None,
    flags: list[str],
    device: str,
) -> None:
    if command == "harness":
        pytest.importorskip("lm_eval")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    asked: list[object] = []

    def load(*names: object, device: object, **settings: object) -> None:
        asked.append(device)
        raise ConfigError("that is all")

    monkeypatch.setattr("slackdlm.models.loading.load_model", load)
    data = tmp_path / "q.jsonl"
    data.write_text('{"prompt": "x", "answer": "y"}\n')
    task = tmp_path / "toy_task.yaml"
    task.write_text(
        f"task: toy_task\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: prompt\ndoc_to_target: answer\n"
    )
    model, output = str(toy_folder), str(tmp_path / "out")
    what = {
        "generate": [model, "--prompt", "x"],
        "answer": [model, "--questions", str(data), "--output", output],
        "chat": [model],
        "harness": [model, "--tasks", str(task)],
        "probe": [
            "--arm",
            f"a={model}",
            "--questions",
            str(data),
            "--output",
            output,
            "--judge",
            "toy",
        ],
    }[command]
    assert main([command, *what, "--canvas-length", "8", *flags]) == 2
    assert asked == [device]


def test_without_a_gpu_it_is_the_cpu() -> None:
    from slackdlm.cli.decoding import chosen_device

    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert chosen_device(None) is None
    assert chosen_device("cuda:5") == "cuda:5"


def test_a_device_that_holds_no_weights_is_refused(
    toy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", str(toy_folder), "--prompt", "x", "--canvas-length", "8"]
    assert main([*words, "--device", "meta"]) == 2
    assert "--device: meta holds no weights to compute with" in capsys.readouterr().err
