"""What is planned is what a real forward pass keeps; benchmarks/bench_plan.py measures whole runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.models.adapter import casts_by_autocast, new_adapter
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import load_model, save_model
from slackdlm.training.config import Recipe, load_recipe
from slackdlm.training.plan import kept_activations, largest_micro_batch, plan_memory
from slackdlm.training.plan_network import empty_network, nf4_bytes, weight_bytes

RECIPE = """
model: {from_scratch: {tokenizer_kind: word, vocab_size: 64, d_model: 32, n_layers: 3, n_heads: 2, mlp_hidden_size: 48}}
data: {train: none, max_prompt_length: 8, canvas_length: 24}
objective: {kind: slack_ctc, slack_ratio: [0, 0.5]}
training: {steps: 3, batch_size: 8}
"""
BLOCK = 4 * 32 * 32 + 3 * 32 * 48 + 2 * 32
NUM_PARAMETERS = 2 * 64 * 32 + 3 * BLOCK + 32


def recipe(tmp_path: Path, *options: str) -> Recipe:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return load_recipe(file, list(options))


def autograd_keeps(network: nn.Module, own: set[int], *, bf16: bool) -> int:
    """Bytes of a real forward pass that are no storage of the network's own."""
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
        network(torch.zeros(4, 32, dtype=torch.long), logits=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("bf16", [False, True])
def test_planned_activations_are_those_that_autograd_keeps(tmp_path: Path, bf16: bool) -> None:
    network = empty_network(recipe(tmp_path))
    planned = kept_activations(network, num_samples=4, num_positions=32, bf16=bf16)
    real = empty_network(recipe(tmp_path)).to_empty(device="cpu")
    own = {p.untyped_storage().data_ptr() for p in real.parameters()}
    measured = autograd_keeps(real, own, bf16=bf16)
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
    whole = NUM_PARAMETERS - BLOCK  # two of three blocks, and what lies outside all blocks
    assert sharded.weights == one.weights // 2 + 4 * whole
    half = plan_memory(recipe(tmp_path, "training.bf16=true"), num_processes=2, sharded=True)
    assert half.weights == sharded.weights - 2 * whole


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


# --- adapters that exist, and 4 bits -------------------------------------------------------------

PER_BLOCK = ((32, 32),) * 4 + ((32, 64),) * 3
"""Sizes of the linear layers in a block of the toy."""


@pytest.fixture
def base(toy: LoadedModel, tmp_path: Path) -> Path:
    save_model(toy, tmp_path / "base")
    return tmp_path / "base"


def write_adapter(base: Path, folder: Path, **options: object) -> Path:
    loaded = new_adapter(load_model(base), rank=3, alpha=6, dropout=0, **options)
    loaded.model.save_pretrained(str(folder))
    return folder


def on_base(tmp_path: Path, base: Path, *model: str) -> Recipe:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"model: {{{', '.join((f'path: {base}', *model))}}}\n"
        "data: {train: none, max_prompt_length: 8, canvas_length: 24}\n"
        "objective: {kind: slack_ctc, slack_ratio: [0, 0.5]}\n"
        "training: {steps: 3, batch_size: 8}\n"
    )
    return load_recipe(file)


def test_an_adapter_that_exists_is_planned_as_it_was_made(tmp_path: Path, base: Path) -> None:
    folder = write_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "ff_out"])
    continued = plan_memory(on_base(tmp_path, base, f"adapter: {folder}"))
    # Two layers in each of two blocks, and the row of <slack> in embedding and output layer.
    assert continued.num_trainable == 2 * 3 * ((32 + 32) + (64 + 32)) + 2 * 32
    lora = "lora: {rank: 3, alpha: 6, target_modules: [q_proj, ff_out]}"
    assert continued == plan_memory(on_base(tmp_path, base, lora))
    without = write_adapter(base, tmp_path / "frozen", train_slack=False)
    plan = plan_memory(on_base(tmp_path, base, f"adapter: {without}"))
    assert plan.num_trainable == 2 * 3 * sum(a + b for a, b in PER_BLOCK)
    network = empty_network(on_base(tmp_path, base, f"adapter: {without}"))
    assert {p.device.type for p in network.parameters()} == {"meta"}


def test_an_adapter_that_is_missing_or_of_another_model_is_one_error(
    tmp_path: Path, base: Path
) -> None:
    folder = write_adapter(base, tmp_path / "adapter")
    settings = folder / "adapter_config.json"
    settings.write_text(settings.read_text().replace('"r": 3', '"r": 4'))
    with pytest.raises(CheckpointError, match=r"adapter: the adapter does not fit the model \("):
        plan_memory(on_base(tmp_path, base, f"adapter: {folder}"))
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"adapter: expected adapter_model\.safetensors"):
        plan_memory(on_base(tmp_path, base, f"adapter: {folder}"))
    with pytest.raises(CheckpointError, match="none: expected a checkpoint folder"):
        plan_memory(on_base(tmp_path, base, f"adapter: {tmp_path / 'none'}"))


def test_nf4_is_a_scale_for_64_weights_and_a_scale_for_256_scales() -> None:
    tables = 4 * (16 + 256 + 1)
    assert nf4_bytes(64 * 256) == 64 * 256 // 2 + 256 + 4 + tables
    assert nf4_bytes(64 * 256 + 1) == 64 * 256 // 2 + 1 + 257 + 8 + tables
    assert 8 * nf4_bytes(4096 * 12288) / (4096 * 12288) == pytest.approx(4.127, abs=5e-4)


@pytest.mark.parametrize(("dtype", "size"), [("bfloat16", 2), ("float32", 4)])
def test_4_bits_are_planned_for_every_linear_layer_but_the_last(
    tmp_path: Path, base: Path, dtype: str, size: int
) -> None:
    options = ("lora: {rank: 3}", f"dtype: {dtype}")
    whole = plan_memory(on_base(tmp_path, base, *options))
    plan = plan_memory(on_base(tmp_path, base, *options, "quantization: 4bit"))
    saved = 2 * sum(size * a * b - nf4_bytes(a * b) for a, b in PER_BLOCK)
    assert whole.weights - plan.weights == saved
    assert (whole.dequantised, plan.dequantised) == (0, size * 32 * 64)
    for name in ("num_parameters", "num_trainable", "gradients", "optimizer", "update"):
        assert getattr(plan, name) == getattr(whole, name)
    assert plan.peak == plan.weights + plan.optimizer + plan.activations + plan.loss_buffers


def test_the_largest_layer_counts_where_it_outweighs_the_loss(tmp_path: Path) -> None:
    plan = plan_memory(recipe(tmp_path))
    more = replace(plan, dequantised=plan.loss_buffers + 1000, gradients_kept=True)
    assert more.peak == replace(plan, gradients_kept=True).peak + 1000


def test_4_bits_under_an_adapter_that_exists(tmp_path: Path, base: Path) -> None:
    folder = write_adapter(base, tmp_path / "adapter")
    continued = on_base(tmp_path, base, f"adapter: {folder}", "quantization: 4bit")
    new = on_base(tmp_path, base, "lora: {rank: 3}", "quantization: 4bit")
    assert plan_memory(continued) == plan_memory(new)


def test_4_bits_are_not_divided(tmp_path: Path, base: Path) -> None:
    quantised = on_base(tmp_path, base, "lora: {rank: 3}", "quantization: 4bit")
    for planned in (plan_memory, largest_micro_batch):
        memory = {"memory": 1e9} if planned is largest_micro_batch else {}
        with pytest.raises(ConfigError, match="--sharded: 4-bit weights"):
            planned(quantised, num_processes=2, sharded=True, **memory)


def storages(network: nn.Module) -> dict[int, torch.UntypedStorage]:
    """What weights and the state of quantised ones occupy."""
    tensors: list[torch.Tensor] = []
    for parameter in network.parameters():
        tensors.append(parameter.data)
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            inner = state.state2
            tensors += [state.absmax, state.code, state.offset, inner.absmax, inner.code]
    return {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("bf16", [False, True])
def test_planned_4_bits_are_those_of_bitsandbytes(
    tmp_path: Path, base: Path, dtype: str, bf16: bool
) -> None:
    pytest.importorskip("bitsandbytes")
    options = (f"dtype: {dtype}", "quantization: 4bit", "lora: {rank: 3}")
    network = empty_network(on_base(tmp_path, base, *options))
    loaded = load_model(base, dtype=dtype, quantization="4bit")
    real = new_adapter(loaded, rank=3, alpha=6, dropout=0).model
    own = storages(real)
    assert weight_bytes(network) == pytest.approx(sum(s.nbytes() for s in own.values()), rel=0.01)
    planned = kept_activations(network, num_samples=4, num_positions=32, bf16=bf16)
    real.train()
    with casts_by_autocast(real, active=bf16):  # as a run has it
        measured = autograd_keeps(real, set(own), bf16=bf16)
    assert sum(planned.blocks) + planned.rest == pytest.approx(measured, rel=0.01)
