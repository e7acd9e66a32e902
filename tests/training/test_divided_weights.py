"""Weights divided over two processes by FSDP2 or ZeRO-3 are trained, saved and resumed as whole ones are."""

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from arms import small_model
from divided_processes import ENGINES, RUNS, train_here
from safetensors.torch import load_file
from test_run import assert_same_run, undo
from test_several_processes import curves
from two_processes import run_in_processes

from slackdlm.errors import ConfigError
from slackdlm.models.adapter import apply_adapter
from slackdlm.models.loading import load_model

SCRIPT = Path(__file__).parents[1] / "support" / "divided_processes.py"


class Done(NamedTuple):
    engine: str
    folder: Path


@pytest.fixture(scope="module", params=ENGINES)
def divided(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    engine = str(request.param)
    if engine == "zero3" and find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    if engine == "zero3" and shutil.which("g++") is None:
        pytest.skip("deepspeed compiles a C++ file at its first run, and there is no g++")
    folder = tmp_path_factory.mktemp(engine)
    run_in_processes(2, SCRIPT, engine, folder)
    return Done(engine, folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs in this process alone."""
    folder = tmp_path_factory.mktemp("whole")
    for name in RUNS:
        train_here(name, folder / name)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = (folder / "model").glob("*.safetensors")
    return load_file(file)


def assert_near(
    a: Path, b: Path, *, largest: float = 2e-6, mean: float = 5e-7, weights_too: bool = False
) -> None:
    one, two = curves(a), curves(b)
    assert len(one["loss"]) == 6
    for key, values in one.items():
        assert values.numel() == two[key].numel() > 0
        difference = (values - two[key]).abs()
        assert float(difference.max()) < largest * (2 if key == "grad_norm" else 1), key
        assert float(difference.mean()) < mean * (2 if key == "grad_norm" else 1), key
    mine, other = weights(a), weights(b)
    assert mine.keys() == other.keys()
    for weight, value in mine.items() if weights_too else ():
        torch.testing.assert_close(other[weight], value, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", RUNS)
def test_divided_weights_follow_the_trajectory_of_whole_ones(
    divided: Done, whole: Path, name: str
) -> None:
    """Up to rounding; with bfloat16 products up to theirs: weights are gathered in bfloat16."""
    if "bf16" in name:
        assert_near(whole / name, divided.folder / name, largest=6e-3, mean=3e-3)
    else:
        assert_near(whole / name, divided.folder / name, weights_too=True)


def test_bfloat16_products_leave_the_loss_and_the_bound_in_float32(divided: Done) -> None:
    for key, values in curves(divided.folder / "full_bf16").items():
        rounded = values.bfloat16().double()
        assert not bool((values == rounded).any()), key


@pytest.mark.parametrize("name", ["full", "adapter"])
def test_resumed_is_unbroken_bit_for_bit_past_a_torn_shard(divided: Done, name: str) -> None:
    folder, shard = divided.folder, ENGINES[divided.engine].shard
    (file,) = (f.name for f in (folder / name / "model").glob("*.safetensors"))
    assert_same_run(folder / name, folder / f"{name}_resumed", weights=f"model/{file}")
    named = f"{name}_resumed/checkpoints/checkpoint-4 is torn and skipped: {shard} has 100 of"
    assert named in (folder / "warnings.log").read_text()


def test_what_was_saved_is_whole_and_loads(divided: Done) -> None:
    full = load_model(str(divided.folder / "full" / "model"))
    assert full.record is not None
    assert full.record.objective == "slack_ctc"
    base = small_model()
    slack, start = base.slack_id, base.model.get_input_embeddings().weight.detach().clone()
    adapted = apply_adapter(
        base.model, divided.folder / "adapter" / "model", slack_id=base.slack_id
    )
    embedding, output = adapted.get_input_embeddings(), adapted.get_output_embeddings()
    for layer in (embedding, output):
        row = layer.token_adapter.trainable_tokens_delta["default"]
        assert row.shape == (1, start.shape[1])
        assert not torch.equal(row[0], layer.token_adapter.base_layer.weight[slack])


def test_a_checkpoint_of_divided_weights_is_not_resumed_with_whole_ones(
    divided: Done, tmp_path: Path
) -> None:
    shutil.copytree(divided.folder / "full", tmp_path / "run")
    undo(tmp_path / "run", step=4)
    log = (tmp_path / "run" / "log.jsonl").read_bytes()
    name = ENGINES[divided.engine].name
    with pytest.raises(
        ConfigError,
        match=f"checkpoint-4: written under {name}, but this run is launched with whole",
    ):
        train_here("full", tmp_path / "run")
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == log


@pytest.mark.parametrize("divided", ["fsdp2"], indirect=True)
def test_fsdp2_resumes_in_one_process_what_two_have_begun(
    divided: Done, whole: Path, tmp_path: Path
) -> None:
    for name in ("full", "adapter"):
        shutil.copytree(divided.folder / name, tmp_path / name)
        undo(tmp_path / name, step=4)
    run_in_processes(1, SCRIPT, "fsdp2", tmp_path, "full", "adapter")
    for name in ("full", "adapter"):
        assert_near(whole / name, tmp_path / name, weights_too=True)
