import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dream_checkpoint import write_checkpoint
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.models.adapter import casts_by_autocast, new_adapter
from slackdlm.models.loaded import LoadedModel, recompute_activations
from slackdlm.models.loading import load_model

WEIGHTS = "adapter_model.safetensors"
Write = Callable[..., Path]
SLACK_ID = 284
TRAINED = (".lora_A.", ".lora_B.", ".trainable_tokens_delta.")
LAYERS = {"q_proj", "k_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out"}


def adapt(folder: Path, **keys: object) -> LoadedModel:
    settings = {"rank": 2, "alpha": 4.0, "dropout": 0.0} | keys
    return new_adapter(load_model(folder), **settings)


def draw_ids() -> torch.Tensor:
    """One of them is ``<slack>``."""
    ids = torch.randint(0, 290, (2, 9), generator=torch.Generator().manual_seed(3))
    ids[0, 3] = SLACK_ID
    return ids


def adapted_layers(loaded: LoadedModel) -> set[str]:
    marks = (name for name, _ in loaded.model.named_parameters() if ".lora_A." in name)
    return {name.split(".lora_A.")[0].removeprefix("base_model.model.") for name in marks}


def train_a_step(loaded: LoadedModel) -> None:
    trainable = [p for p in loaded.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=1.0)
    for _ in range(2):  # the first step moves B alone, since B starts at zero
        optimizer.zero_grad()
        loaded.model(draw_ids()).logits.logsumexp(-1).mean().backward()
        optimizer.step()


def test_every_layer_of_every_block_is_adapted_and_the_head_is_not(published: Path) -> None:
    expected = {f"model.transformer.blocks.{i}.{name}" for i in range(2) for name in LAYERS}
    assert adapted_layers(adapt(published)) == expected


def test_a_name_shared_with_the_head_means_the_blocks_alone(published: Path) -> None:
    found = adapted_layers(adapt(published, target_modules=["ff_out", "q_proj"]))
    blocks = [f"model.transformer.blocks.{i}" for i in range(2)]
    assert found == {f"{b}.{name}" for b in blocks for name in ("ff_out", "q_proj")}


def test_a_new_adapter_changes_nothing_yet(published: Path) -> None:
    ids = draw_ids()
    before = load_model(published).model(ids).logits
    found = adapt(published).model(ids).logits
    torch.testing.assert_close(found, before, atol=1e-6, rtol=0)
    others = torch.arange(before.shape[-1]) != adapt(published).slack_id
    torch.testing.assert_close(found[..., others], before[..., others], atol=0, rtol=0)


def test_the_adapter_alone_is_trained_and_moves_the_logits(published: Path) -> None:
    loaded = adapt(published)
    state = {k: v.clone() for k, v in loaded.model.state_dict().items()}
    before = loaded.model(draw_ids()).logits.detach()
    train_a_step(loaded)
    moved = {k for k, v in loaded.model.state_dict().items() if not torch.equal(v, state[k])}
    assert loaded.slack_id == SLACK_ID
    assert moved == {k for k in state if any(mark in k for mark in TRAINED)}
    assert not torch.allclose(loaded.model(draw_ids()).logits, before, atol=1e-4)


def test_a_trained_adapter_survives_saving_and_loading(published: Path, tmp_path: Path) -> None:
    loaded = adapt(published, target_modules=["ff_out", "v_proj"])
    train_a_step(loaded)
    loaded.model.save_pretrained(str(tmp_path / "adapter"))
    again = load_model(published, adapter=tmp_path / "adapter")
    assert adapted_layers(again) == adapted_layers(loaded)
    ids = draw_ids()
    torch.testing.assert_close(again.model(ids).logits, loaded.model(ids).logits, atol=0, rtol=0)
    merged = again.model.merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, loaded.model(ids).logits, atol=1e-4, rtol=0)


def test_a_bfloat16_model_gets_a_float32_adapter(published: Path) -> None:
    loaded = new_adapter(load_model(published, dtype="bfloat16"), rank=2, alpha=4.0, dropout=0.0)
    for parameter in loaded.model.parameters():
        expected = torch.float32 if parameter.requires_grad else torch.bfloat16
        assert parameter.dtype == expected
    assert loaded.model(draw_ids()).logits.dtype == torch.bfloat16


def test_the_seed_alone_decides_the_new_weights(published: Path) -> None:
    before = torch.random.get_rng_state()
    first, second, other = (adapt(published, seed=seed).model for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    name = next(name for name, _ in first.named_parameters() if ".lora_A." in name)
    torch.testing.assert_close(first.get_parameter(name), second.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), other.get_parameter(name))


def test_several_gpus_draw_no_warning(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: None)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
    monkeypatch.setattr(torch.random, "_fork_rng_warned_already", False)
    assert adapted_layers(adapt(published))


def test_alpha_over_rank_scales_the_update(published: Path) -> None:
    loaded = adapt(published, rank=4, alpha=6.0)
    layer = loaded.model.get_submodule("base_model.model.model.transformer.blocks.0.q_proj")
    assert layer.scaling == {"default": 1.5}
    assert layer.lora_A["default"].weight.shape == (4, 64)


def test_gradient_checkpointing_reaches_the_adapter(published: Path) -> None:
    grads = []
    for checkpointing in (False, True):
        loaded = adapt(published)
        if checkpointing:
            recompute_activations(loaded.model)
        loaded.model.train()
        loaded.model(draw_ids()).logits.logsumexp(-1).mean().backward()
        grads.append({n: p.grad for n, p in loaded.model.named_parameters() if p.requires_grad})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=0, rtol=0)
        assert ".lora_A." in name or bool(grad.any())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rank": 0}, r"rank >= 1, .* got 0, 4.0 and 0.0"),
        ({"alpha": 0.0}, r"alpha > 0 .* got 2, 0.0 and 0.0"),
        ({"alpha": float("nan")}, r"alpha > 0 .* got 2, nan"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\), got 2, 4.0 and 1.0"),
        ({"target_modules": []}, "target_modules is empty"),
        ({"target_modules": ["q_prj"]}, "no linear layer is called 'q_prj'; did you mean q_proj"),
        ({"target_modules": ["wte"]}, r"called 'wte'; use some of attn_out, ff_out, ff_proj"),
        ({"target_modules": ["model.transformer.ff_out"]}, "no linear layer is called 'model"),
    ],
)
def test_a_wrong_setting_is_an_error(
    published: Path, keys: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        adapt(published, **keys)


def test_a_second_adapter_is_an_error(published: Path) -> None:
    with pytest.raises(ConfigError, match="carries one already"):
        new_adapter(adapt(published), rank=2, alpha=4.0, dropout=0.0)


def test_the_guide_s_way_to_merge_gives_the_published_layout(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    adapted = new_adapter(load_model(published), rank=2, alpha=4, dropout=0)
    for name, value in adapted.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(value)
    adapted.model.save_pretrained("runs/llada-8b-lora-slack-ctc/model")
    guide = (Path(__file__).parents[2] / "docs" / "finetune-llada.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"    from dataclasses import replace\n(?:(?:    .*)?\n)+", guide)
    exec(textwrap.dedent(code).replace("GSAI-ML/LLaDA-8B-Instruct", str(published)), {})
    names = {name for path in published.glob("*.safetensors") for name in load_file(path)}
    assert load_file(tmp_path / "merged" / "model.safetensors").keys() == names
    merged = load_model(tmp_path / "merged").model
    ids = draw_ids()
    torch.testing.assert_close(merged(ids).logits, adapted.model(ids).logits, atol=1e-4, rtol=1e-4)


def test_an_adapter_of_another_architecture_is_one_error(published: Path, tmp_path: Path) -> None:
    adapted = new_adapter(load_model(published), rank=2, alpha=4, dropout=0)
    adapted.model.save_pretrained(str(tmp_path / "adapter"))
    dream = write_checkpoint(tmp_path / "dream")
    with pytest.raises(
        CheckpointError, match=r"does not fit the model \(ValueError: Target modules"
    ):
        load_model(dream, adapter=tmp_path / "adapter")


def test_a_published_checkpoint_with_a_grown_vocabulary_keeps_its_adapter(
    write_checkpoint: Write, tmp_path: Path
) -> None:
    folder = write_checkpoint(reserved=False, spare_rows=0)
    loaded = adapt(folder)
    train_a_step(loaded)
    loaded.model.save_pretrained(str(tmp_path / "adapter"))
    saved = load_file(tmp_path / "adapter" / WEIGHTS)
    assert all(".lora_" in k or k.endswith(".trainable_tokens_delta") for k in saved)
    again = load_model(folder, adapter=tmp_path / "adapter")
    ids = draw_ids()
    torch.testing.assert_close(again.model(ids).logits, loaded.model(ids).logits, atol=0, rtol=0)


def test_casts_left_to_autocast_change_no_value(published: Path) -> None:
    found = []
    for active in (False, True):
        loaded = new_adapter(
            load_model(published, dtype="bfloat16"), rank=2, alpha=4.0, dropout=0.0
        )
        for name, value in loaded.model.named_parameters():
            if ".lora_B." in name:
                value.data.fill_(0.01)
        layers = [m for m in loaded.model.modules() if isinstance(m, LoraLayer)]
        kept: dict[int, torch.Tensor] = {}  # several operations may keep the same memory

        def pack(tensor: torch.Tensor, kept: dict[int, torch.Tensor] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with (
            casts_by_autocast(loaded.model, active=active),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16),
        ):
            assert {layer.cast_input_dtype_enabled for layer in layers} == {not active}
            logits = loaded.model(draw_ids()).logits
            logits.float().logsumexp(-1).mean().backward()
        assert all(layer.cast_input_dtype_enabled for layer in layers)
        grads = [p.grad for p in loaded.model.parameters() if p.requires_grad]
        found.append((logits, grads, len(kept)))
    torch.testing.assert_close(found[1][:2], found[0][:2], atol=0, rtol=0)
    assert found[1][2] < found[0][2]
