"""Slack where the model itself would put it: drawn as its own logits say, and part of the seeded run."""

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from arms import SLACK_CTC, short, train_made
from oracles import collapse
from safetensors.torch import load_file

from slackdlm.errors import ConfigError
from slackdlm.models.loaded import LoadedModel
from slackdlm.training.config import ObjectiveConfig
from slackdlm.training.data import Sample
from slackdlm.training.draw import canvas_spec, collate
from slackdlm.training.model_alignment import aligned
from slackdlm.training.stream import TrainStream

MODEL = ObjectiveConfig(
    kind="slack_ctc", slack_ratio=(0.0, 0.8), alignment="model", alignment_warmup=0
)


def batch_of(loaded: LoadedModel, samples: list[Sample], objective: ObjectiveConfig, size: int):
    spec = canvas_spec(loaded, canvas_length=20, objective=objective)
    stream = TrainStream(samples, spec, num_steps=1, batch_size=size, seed=0, data_seed=0)
    return spec, collate([stream[n] for n in range(size)], spec=spec)


def posterior(
    loaded: LoadedModel, prompt: list[int], target: list[int], *, num_positions: int, length: int
) -> dict[tuple[int, ...], float]:
    """Probability of every alignment on the masked canvas, from the network's plain logits."""
    ids = torch.tensor([prompt + [loaded.mask_id] * length])
    log_probs = loaded.model(ids).logits[0, len(prompt) :].double().log_softmax(1)
    weights: dict[tuple[int, ...], float] = {}
    for places in itertools.combinations(range(num_positions), len(target)):
        path = [loaded.slack_id] * num_positions
        for place, token in zip(places, target, strict=True):
            path[place] = token
        weights[tuple(path)] = float(sum(log_probs[i, t] for i, t in enumerate(path)).exp())
    total = sum(weights.values())
    return {path: weight / total for path, weight in weights.items()}


@torch.no_grad()
def test_slack_stands_where_the_model_s_own_posterior_puts_it(
    new_loaded: Callable[[], LoadedModel],
) -> None:
    loaded = new_loaded()
    generator = torch.Generator().manual_seed(0)
    for parameter in loaded.model.parameters():  # new weights give every place the same logits
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    sample = Sample(torch.tensor([5, 6, 7]), torch.tensor([8, 9, 8]), "made")
    # Three tokens and two slack, then end-of-text padding.
    spec = canvas_spec(loaded, canvas_length=7, objective=replace(MODEL, slack_ratio=(0.67, 0.67)))
    stream = TrainStream([sample], spec, num_steps=1, batch_size=2000, seed=0, data_seed=0)
    batch = collate([stream[n] for n in range(2000)], spec=spec)
    moved = aligned(loaded.model, loaded.model, batch, spec=spec)
    expected = posterior(loaded, [5, 6, 7], [8, 9, 8], num_positions=5, length=7)
    counts = Counter(tuple(row) for row in moved["clean"][:, :5].tolist())
    assert counts.keys() <= expected.keys()
    assert max(expected.values()) > 0.2  # far from every arrangement alike
    for path, p in expected.items():
        margin = 6 * (p * (1 - p) / 2000) ** 0.5 + 1 / 2000
        assert counts[path] / 2000 == pytest.approx(p, abs=margin)


@torch.no_grad()
@pytest.mark.parametrize("region", ["content", "canvas"])
def test_masks_prompts_and_targets_stay(
    new_loaded: Callable[[], LoadedModel], samples: list[Sample], region: str
) -> None:
    loaded = new_loaded()
    objective = replace(MODEL, slack_region=region)
    spec, batch = batch_of(loaded, samples, objective, 16)
    moved = aligned(loaded.model, loaded.model, batch, spec=spec)
    is_masked = batch["noisy"] == spec.mask_id
    assert torch.equal(moved["noisy"] == spec.mask_id, is_masked)
    assert torch.equal(moved["noisy"][~is_masked], moved["clean"][~is_masked])
    num_positions = batch["noisy"].shape[1]
    assert torch.equal(moved["input_ids"][:, -num_positions:], moved["noisy"])
    assert torch.equal(
        moved["input_ids"][:, :-num_positions], batch["input_ids"][:, :-num_positions]
    )
    for row in range(16):
        length, target = int(batch["ctc_lengths"][row]), int(batch["target_lengths"][row])
        assert collapse(moved["clean"][row, :length].tolist(), spec.slack_id) == (
            batch["targets"][row, :target].tolist()
        )
        assert torch.equal(moved["clean"][row, length:], batch["clean"][row, length:])
        if length == target:
            assert torch.equal(moved["noisy"][row], batch["noisy"][row])
    assert not torch.equal(moved["clean"], batch["clean"])
    others = batch.keys() - {"input_ids", "noisy", "clean"}
    assert all(torch.equal(moved[name], batch[name]) for name in others)


def test_masks_and_order_are_those_of_the_matched_arm(loaded: LoadedModel, samples: list[Sample]):
    _, random_batch = batch_of(loaded, samples, SLACK_CTC, 8)
    _, batch = batch_of(
        loaded, samples, replace(SLACK_CTC, alignment="model", alignment_warmup=0), 8
    )
    assert "uniforms" not in random_batch
    assert all(torch.equal(value, batch[name]) for name, value in random_batch.items())


@pytest.mark.parametrize("micro", [None, 2])
def test_a_run_is_resumed_bit_for_bit_and_begins_with_random_places(
    tmp_path: Path, micro: int | None
) -> None:
    objective = replace(MODEL, alignment_warmup=2)
    training = short(steps=6, save_every=4, micro_batch_size=micro, keep_checkpoints=9)
    for name in ("whole", "broken"):
        train_made(tmp_path / name, objective=objective, training=training, adapter=False)
    broken = tmp_path / "broken"
    shutil.rmtree(broken / "model")
    shutil.rmtree(broken / "checkpoints" / "checkpoint-6", ignore_errors=True)
    record = json.loads((broken / "run.json").read_text())
    del record["result"]
    (broken / "run.json").write_text(json.dumps(record | {"status": "running"}))
    train_made(broken, objective=objective, training=training, adapter=False)
    whole, again = (
        load_file(folder / "model" / "model.safetensors") for folder in (tmp_path / "whole", broken)
    )
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    plain = replace(objective, alignment="random")
    train_made(tmp_path / "plain", objective=plain, training=training, adapter=False)
    curves = [losses(tmp_path / name) for name in ("whole", "plain")]
    assert curves[0][:2] == curves[1][:2]
    assert curves[0][2:] != curves[1][2:]


def losses(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def test_without_slack_there_is_nothing_to_place():
    with pytest.raises(ConfigError, match=r"objective\.alignment.*slack_ratio"):
        ObjectiveConfig(kind="ce", alignment="model")
