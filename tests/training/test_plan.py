"""What is planned is what a real forward pass keeps; benchmarks/bench_plan.py measures whole runs."""

from pathlib import Path

import pytest
import torch

from slackdlm.errors import ConfigError
from slackdlm.training.config import Recipe, load_recipe
from slackdlm.training.plan import empty_network, kept_activations, plan_memory

RECIPE = """
model: {from_scratch: {tokenizer_kind: word, vocab_size: 64, d_model: 32, n_layers: 3, n_heads: 2, mlp_hidden_size: 48}}
data: {train: none, max_prompt_length: 8, canvas_length: 24}
objective: {kind: slack_ctc, slack_ratio: [0, 0.5]}
training: {steps: 3, batch_size: 8}
"""
NUM_PARAMETERS = 2 * 64 * 32 + 3 * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32


def recipe(tmp_path: Path, *options: str) -> Recipe:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return load_recipe(file, list(options))


@pytest.mark.parametrize("bf16", [False, True])
def test_planned_activations_are_those_that_autograd_keeps(tmp_path: Path, bf16: bool) -> None:
    network = empty_network(recipe(tmp_path))
    planned = kept_activations(network, num_samples=4, num_positions=32, bf16=bf16)
    real = empty_network(recipe(tmp_path)).to_empty(device="cpu")
    own = {p.untyped_storage().data_ptr() for p in real.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16),
    ):
        real(torch.zeros(4, 32, dtype=torch.long), logits=False)
    measured = sum(storage.nbytes() for storage in kept.values())
    assert sum(planned.blocks) + planned.rest == measured
    assert len(planned.blocks) == 3
    assert planned.blocks[1] == planned.blocks[2] > 0
    assert planned.inputs == [4 * 32 * 32 * 4] * 3


def test_weights_gradients_and_optimizer_are_counted(tmp_path: Path) -> None:
    plan = plan_memory(recipe(tmp_path))
    assert plan.num_parameters == plan.num_trainable == NUM_PARAMETERS
    assert (plan.weights, plan.gradients) == (4 * NUM_PARAMETERS, 4 * NUM_PARAMETERS)
    assert plan.optimizer == 8 * NUM_PARAMETERS
    assert plan.micro_batch_size == 8
    assert plan.peak == plan.weights + plan.optimizer + plan.activations + plan.loss_buffers


def test_processes_share_the_batch_and_send_gradients_or_share_the_weights(tmp_path: Path) -> None:
    one, two = (plan_memory(recipe(tmp_path), num_processes=n) for n in (1, 2))
    assert two.micro_batch_size == 4
    assert two.gradients == 2 * one.gradients
    assert two.activations < 0.6 * one.activations
    sharded = plan_memory(recipe(tmp_path), num_processes=2, sharded=True)
    assert sharded.optimizer * 2 == one.optimizer
    assert sharded.gradients * 2 == one.gradients


def test_accumulation_keeps_gradients_through_the_forward_pass(tmp_path: Path) -> None:
    plan = plan_memory(recipe(tmp_path, "training.micro_batch_size=2"))
    assert plan.micro_batch_size == 2
    lasting = plan.weights + plan.optimizer + plan.gradients
    assert plan.peak == lasting + plan.activations + plan.loss_buffers


def test_recomputing_keeps_one_block(tmp_path: Path) -> None:
    whole = plan_memory(recipe(tmp_path))
    recomputed = plan_memory(recipe(tmp_path, "training.gradient_checkpointing=true"))
    assert recomputed.activations < 0.5 * whole.activations


def test_what_cannot_be_planned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.batch_size: 8 is not a multiple of"):
        plan_memory(recipe(tmp_path), num_processes=3)
