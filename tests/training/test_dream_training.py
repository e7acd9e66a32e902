"""Dream, whose network predicts position ``i`` at ``i - 1``, is trained, saved, resumed and decoded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dream_checkpoint import write_checkpoint
from safetensors.torch import load_file
from test_run import assert_same_run, undo

from slackdlm.models.chat import encode_prompt
from slackdlm.models.checkpoint import read_tensor_infos
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import load_model
from slackdlm.sampling.config import SamplerConfig
from slackdlm.sampling.sampler import Sampler
from slackdlm.training.config import load_recipe
from slackdlm.training.run import train

CANVAS_LENGTH = 12
ANSWERS = {"Hello": "world", "user": "are are"}
RATIOS = {"ce": [0, 0], "slack_ctc": [0.0, 0.5]}
METHODS: dict[str, dict[str, Any]] = {
    "full": {"learning_rate": 3e-3, "steps": 80},
    "lora": {"learning_rate": 1e-2, "steps": 140},
}
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("dream") / "base")


@pytest.fixture
def train_dream(base: Path, tmp_path: Path) -> Train:
    rows = [{"prompt": prompt, "response": answer} for prompt, answer in ANSWERS.items()]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(kind: str, method: str, *, output: Path, resume: bool = False, **training: Any) -> Path:
        lora = {"lora": {"rank": 32, "alpha": 32}} if method == "lora" else {}
        settings = {"batch_size": 4, "eval_samples": 0, "save_every": 0, "seed": 1}
        recipe = {
            "model": {"path": str(base)} | lora,
            "data": {"train": str(data), "max_prompt_length": 64, "canvas_length": CANVAS_LENGTH},
            "objective": {"kind": kind, "slack_ratio": RATIOS[kind]},
            "training": settings | METHODS[method] | training,
        }
        file = tmp_path / "dream.yaml"
        file.write_text(yaml.safe_dump(recipe))
        train(load_recipe(file), output=output, resume=resume, progress=False)
        return output / "model"

    return run


def load_trained(base: Path, method: str, folder: Path) -> LoadedModel:
    return load_model(folder) if method == "full" else load_model(base, adapter=folder)


def decode(loaded: LoadedModel) -> list[str]:
    config = SamplerConfig(canvas_length=CANVAS_LENGTH, steps=CANVAS_LENGTH)
    return [found.text for found in Sampler(loaded, config).generate(list(ANSWERS))]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", RATIOS)
def test_it_says_what_it_was_trained_to_say(
    train_dream: Train, base: Path, tmp_path: Path, kind: str, method: str
) -> None:
    folder = train_dream(kind, method, output=tmp_path / "run")
    loaded = load_trained(base, method, folder)
    assert decode(loaded) == list(ANSWERS.values())
    assert decode(load_model(base)) != list(ANSWERS.values())


def test_the_trained_network_predicts_a_token_at_the_position_before_it(
    train_dream: Train, tmp_path: Path
) -> None:
    """As the published code reads it: the head on the body's own states, shifted by the reader."""
    loaded = load_model(train_dream("ce", "full", output=tmp_path / "run"))
    network: Any = loaded.model
    prompt = encode_prompt(loaded.tokenizer, [{"role": "user", "content": "Hello"}])
    answer: list[int] = loaded.tokenizer("world").input_ids
    ids = torch.tensor([prompt + [loaded.mask_id] * CANVAS_LENGTH])
    everything = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool)
    with torch.no_grad():
        states = network.model(input_ids=ids, attention_mask={"full_attention": everything})
        unshifted = network.lm_head(states.last_hidden_state)[0]
    first = len(prompt) - 1
    assert unshifted[first : first + len(answer)].argmax(-1).tolist() == answer
    assert len(answer) > 1


def test_it_is_saved_in_the_published_layout(
    train_dream: Train, base: Path, tmp_path: Path
) -> None:
    folder = train_dream("slack_ctc", "full", output=tmp_path / "run", steps=2)
    published, saved = read_tensor_infos(base), read_tensor_infos(folder)
    assert {k: v.shape for k, v in saved.items()} == {k: v.shape for k, v in published.items()}
    names = {file.name for file in folder.iterdir()}
    assert {"config.json", "generation_config.json", "vocab.json", "merges.txt"} <= names
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("Dream", ["DreamModel"])


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_is_the_unbroken_one(train_dream: Train, tmp_path: Path, method: str) -> None:
    settings = {"steps": 6, "save_every": 2, "keep_checkpoints": 9, "micro_batch_size": 2}
    train_dream("slack_ctc", method, output=tmp_path / "whole", **settings)
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    undo(tmp_path / "broken", step=4)
    train_dream("slack_ctc", method, output=tmp_path / "broken", resume=True, **settings)
    file = "model/model.safetensors" if method == "full" else "model/adapter_model.safetensors"
    assert load_file(tmp_path / "whole" / file)
    assert_same_run(tmp_path / "whole", tmp_path / "broken", weights=file)
