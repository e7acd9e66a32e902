"""``train --show`` and ``train --plan`` of encoders, from folders in which no weight is read."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from encoder_checkpoints import OTHERS, write_encoder, write_other

from slackdlm.cli import main
from slackdlm.models.loading import load_model
from slackdlm.training.config import load_recipe
from slackdlm.training.plan import kept_activations, plan_memory
from slackdlm.training.plan_network import empty_network

RECIPES = Path(__file__).parents[2] / "recipes"
SHARED = ("bert", "roberta", "modernbert")
WITHOUT_PLAN = ("longformer",)
SETTINGS = ["data.train=t.jsonl", "data.max_prompt_length=32", "data.canvas_length=16"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the network goes; the working folder holds data and our own recipe for it."""
    monkeypatch.chdir(tmp_path)
    row = {"prompt": "the old boats", "response": "sailed 1000 miles ."}
    Path("t.jsonl").write_text((json.dumps(row) + "\n") * 8)
    shutil.copy(RECIPES / "modernbert-slack-ctc.yaml", "r.yaml")
    return tmp_path / "toy"


def write(folder: Path, kind: str) -> Path:
    return write_encoder(folder, kind) if kind in SHARED else write_other(folder, kind)


def options(*more: str) -> list[str]:
    settings = ["model.path=./toy", "training.eval_samples=0", *SETTINGS, *more]
    return [part for setting in settings for part in ("--set", setting)]


@pytest.mark.parametrize("kind", [*SHARED, *OTHERS])
def test_samples_and_plan_of_every_encoder(
    folder: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, kind)
    assert main(["train", "r.yaml", "--show", "2", *options()]) == 0
    shown, loaded = capsys.readouterr().out, load_model(folder)
    response = loaded.tokenizer("sailed 1000 miles .", add_special_tokens=False)["input_ids"]
    assert f"canvas 16 = response {len(response) + 1} + slack" in shown  # the end too
    assert "target sailed 1000 miles" in shown
    is_planned = kind not in WITHOUT_PLAN
    assert main(["train", "r.yaml", "--plan", *options()]) == (0 if is_planned else 2)
    planned = capsys.readouterr()
    if is_planned:
        weights = list(loaded.model.parameters())
        sizes = (
            sum(p.numel() for p in part)
            for part in (weights, [p for p in weights if p.requires_grad])
        )
        assert "{:,} parameters, {:,} trained".format(*sizes) in planned.out
    else:
        assert "--plan: not possible for LongformerForMaskedLM" in planned.err


@pytest.mark.parametrize("kind", [*SHARED, *(k for k in OTHERS if k not in WITHOUT_PLAN)])
def test_planned_bytes_are_those_of_a_real_forward_pass(folder: Path, kind: str) -> None:
    write(folder, kind)
    recipe = load_recipe(Path("r.yaml"), ["model.path=./toy", *SETTINGS])
    planned = kept_activations(empty_network(recipe), num_samples=4, num_positions=48, bf16=False)
    real = load_model(folder).model.train()
    own = {p.untyped_storage().data_ptr() for p in real.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        mask = torch.ones(4, 48, dtype=torch.long)
        mask[0, 0] = 0  # prompts differ in length: without padding some attention keeps less
        real(torch.zeros(4, 48, dtype=torch.long), mask, logits=False)
    measured = sum(storage.nbytes() for storage in kept.values())
    assert sum(planned.blocks) + planned.rest == measured
    assert plan_memory(recipe).weights == sum(p.nbytes for p in real.parameters())
