"""How a step is split over processes and accumulation changes nothing but rounding."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from several_processes import RUNS, train_here
from test_run import undo
from torch import Tensor
from two_processes import run_in_two_processes

from slackdlm.training.config import load_recipe
from slackdlm.training.run import train


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run_in_two_processes(Path(__file__).parents[1] / "support" / "several_processes.py", folder)
    return folder


def curves(folder: Path) -> dict[str, Tensor]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {
        key: torch.tensor([r[key] for r in records if key in r], dtype=torch.float64)
        for key in ("loss", "grad_norm", "eval_ce", "eval_objective")
    }


@pytest.mark.parametrize("name", RUNS)
def test_one_process_and_two_follow_the_same_trajectory(
    two_processes: Path, tmp_path: Path, name: str
) -> None:
    """1 x 8 against 2 x 4, or 1 x 2 x 4 against 2 x 2 x 2 (processes x passes x samples)."""
    train_here(name, tmp_path / "one", **({"micro_batch_size": 4} if "acc" in name else {}))
    one, two = curves(tmp_path / "one"), curves(two_processes / name)
    assert len(one["loss"]) == 12
    for key, values in one.items():
        assert values.numel() == two[key].numel() > 0
        difference = (values - two[key]).abs()
        assert float(difference.max()) < 2e-5, key
        assert float(difference.mean()) < 4e-6, key
    file = "model/adapter_model.safetensors" if "adapter" in name else "model/model.safetensors"
    mine, other = (load_file(f / file) for f in (tmp_path / "one", two_processes / name))
    for weight, value in mine.items():
        torch.testing.assert_close(other[weight], value, rtol=1e-4, atol=5e-5)


def test_accumulation_with_lengths_that_vary_is_the_whole_step(
    two_processes: Path,
) -> None:
    whole, parts = (
        curves(two_processes / name) for name in ("tokens_unpadded", "tokens_unpadded_accumulated")
    )
    assert float((whole["loss"] - parts["loss"]).abs().max()) < 2e-5


def test_the_command_resumes_in_two_processes_what_one_has_begun(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data.jsonl"
    rows = [{"prompt": f"w{i % 7}", "response": f"w{i % 7} w{i % 5} w{i % 3}"} for i in range(30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = {"vocab_size": 48, "d_model": 16, "n_layers": 1, "n_heads": 2, "mlp_hidden_size": 16}
    blocks = {
        "model": {"from_scratch": {"tokenizer_kind": "word", **shape}},
        "data": {"train": str(data), "max_prompt_length": 16, "canvas_length": 12},
        "objective": {"kind": "slack_ctc", "slack_ratio": [0, 0.5]},
        "training": {"steps": 6, "batch_size": 8, "save_every": 2, "keep_checkpoints": 9}
        | {"eval_every": 3, "eval_samples": 6},
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(blocks))
    train(load_recipe(recipe), output=tmp_path / "one", progress=False)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    undo(tmp_path / "two", step=2)
    printed = run_in_two_processes(
        *("-m", "slackdlm.cli", "train", str(recipe), "--resume", "--quiet"),
        *("--output", str(tmp_path / "two")),
    )
    assert printed.count("recipe: 6 steps") == 1
    one, two = curves(tmp_path / "one"), curves(tmp_path / "two")
    for key, values in one.items():
        torch.testing.assert_close(two[key], values, rtol=0, atol=2e-5)
