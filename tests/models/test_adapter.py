"""Adapters: new ones, and those that come in a folder, which fit the model or are refused."""

import json
import re
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dream_checkpoint import write_checkpoint as write_dream
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.models.adapter import casts_by_autocast, new_adapter
from slackdlm.models.loaded import LoadedModel, recompute_activations
from slackdlm.models.loading import load_model, save_model

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SLACK_ID = 284
TRAINED = (".lora_A.", ".lora_B.", ".trainable_tokens_delta.")


def adapt(folder: Path, **keys: object) -> LoadedModel:
    settings = {"rank": 2, "alpha": 4.0, "dropout": 0.0} | keys
    return new_adapter(load_model(folder), **settings)


def draw_ids() -> torch.Tensor:
    """One of them is ``<slack>``."""
    ids = torch.randint(0, 290, (2, 9), generator=torch.Generator().manual_seed(3))
    ids[0, 3] = SLACK_ID
    return ids


def edit_json(path: Path, **keys: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


# --- new adapters --------------------------------------------------------------------------------


def test_a_name_shared_with_the_head_means_the_blocks_alone(published: Path) -> None:
    loaded = adapt(published, target_modules=["ff_out", "q_proj"])
    names = [name for name, _ in loaded.model.named_parameters() if ".lora_A." in name]
    blocks = [f"base_model.model.model.transformer.blocks.{i}" for i in range(2)]
    expected = {f"{b}.{name}" for b in blocks for name in ("ff_out", "q_proj")}
    assert {name.split(".lora_A.")[0] for name in names} == expected


def test_the_adapter_alone_is_trained_and_moves_the_logits(published: Path) -> None:
    loaded = adapt(published)
    state = {k: v.clone() for k, v in loaded.model.state_dict().items()}
    before = loaded.model(draw_ids()).logits.detach()
    trainable = [p for p in loaded.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=1.0)
    for _ in range(2):  # the first step moves B alone, since B starts at zero
        optimizer.zero_grad()
        loaded.model(draw_ids()).logits.logsumexp(-1).mean().backward()
        optimizer.step()
    moved = {k for k, v in loaded.model.state_dict().items() if not torch.equal(v, state[k])}
    assert loaded.slack_id == SLACK_ID
    assert moved == {k for k in state if any(mark in k for mark in TRAINED)}
    assert not torch.allclose(loaded.model(draw_ids()).logits, before, atol=1e-4)


def test_a_bfloat16_model_gets_a_float32_adapter(published: Path) -> None:
    loaded = new_adapter(load_model(published, dtype="bfloat16"), rank=2, alpha=4.0, dropout=0.0)
    for parameter in loaded.model.parameters():
        expected = torch.float32 if parameter.requires_grad else torch.bfloat16
        assert parameter.dtype == expected
    assert loaded.model(draw_ids()).logits.dtype == torch.bfloat16


def test_the_seed_alone_decides_the_new_weights(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # and several GPUs draw no warning
    monkeypatch.setattr(torch.random, "_fork_rng_warned_already", False)
    before = torch.random.get_rng_state()
    first, second, other = (adapt(published, seed=seed).model for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    name = next(name for name, _ in first.named_parameters() if ".lora_A." in name)
    torch.testing.assert_close(first.get_parameter(name), second.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), other.get_parameter(name))


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
    torch.testing.assert_close(grads[1], grads[0], atol=0, rtol=0)
    assert all(".lora_A." in name or bool(grad.any()) for name, grad in grads[0].items())


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


def test_a_grown_vocabulary_is_not_saved_with_the_adapter(
    write_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_checkpoint(reserved=False, spare_rows=0)
    loaded = adapt(folder)
    loaded.model.save_pretrained(str(tmp_path / "adapter"))
    saved = load_file(tmp_path / "adapter" / WEIGHTS)
    assert all(".lora_" in k or k.endswith(".trainable_tokens_delta") for k in saved)
    again, ids = load_model(folder, adapter=tmp_path / "adapter"), draw_ids()
    torch.testing.assert_close(again.model(ids).logits, loaded.model(ids).logits, atol=0, rtol=0)


def test_casts_left_to_autocast_change_no_value(published: Path) -> None:
    results = []
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
        results.append((logits, grads, len(kept)))
    torch.testing.assert_close(results[1][:2], results[0][:2], atol=0, rtol=0)
    assert results[1][2] < results[0][2]


def test_the_guide_s_way_to_merge_gives_the_published_layout(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    adapted = adapt(published)
    for name, value in adapted.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(value)
    adapted.model.save_pretrained("runs/llada-8b-lora-slack-ctc/model")
    guide = (Path(__file__).parents[2] / "docs" / "finetune-llada.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"    from dataclasses import replace\n(?:(?:    .*)?\n)+", guide)
    exec(textwrap.dedent(code).replace("GSAI-ML/LLaDA-8B-Instruct", str(published)), {})
    names = {name for path in published.glob("*.safetensors") for name in load_file(path)}
    assert load_file(tmp_path / "merged" / "model.safetensors").keys() == names
    merged, ids = load_model(tmp_path / "merged").model, draw_ids()
    torch.testing.assert_close(merged(ids).logits, adapted.model(ids).logits, atol=1e-4, rtol=1e-4)


# --- adapters from a folder ----------------------------------------------------------------------


@pytest.fixture
def adapter(published: Path, tmp_path: Path) -> Path:
    """A LoRA adapter with weights that change the output, as PEFT saves it."""
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = get_peft_model(load_model(published).model, config)
    adapted.save_pretrained(tmp_path / "adapter")
    # What other libraries write; PEFT's causal wrapper could not call the model.
    edit_json(tmp_path / "adapter" / CONFIG, task_type="CAUSAL_LM")
    return tmp_path / "adapter"


def test_an_adapter_changes_the_logits_as_its_merged_weights_do(
    published: Path, adapter: Path, tmp_path: Path
) -> None:
    ids, plain, before = draw_ids(), load_model(published), torch.random.get_rng_state()
    adapted = load_model(published, adapter=adapter)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert adapted.name == f"{published}+{adapter}"
    logits = adapted.model(ids).logits
    assert not torch.allclose(plain.model(ids).logits, logits, atol=1e-2)
    assert not any(p.requires_grad for p in adapted.model.parameters())
    with pytest.raises(ConfigError, match="save_model: the model carries an adapter"):
        save_model(adapted, tmp_path / "saved")
    merged = adapted.model.merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, logits, atol=1e-4, rtol=0)
    save_model(replace(adapted, model=merged), tmp_path / "saved")
    saved = load_model(tmp_path / "saved").model(ids).logits
    torch.testing.assert_close(saved, merged(ids).logits, atol=0, rtol=0)


def test_keys_of_other_peft_versions_that_ask_for_nothing_do_no_harm(
    published: Path, adapter: Path
) -> None:
    edit_json(adapter / CONFIG, merge_weights=False, some_future_key=None)
    load_model(published, adapter=adapter)
    edit_json(adapter / CONFIG, some_future_key=1)
    with pytest.raises(CheckpointError, match="unknown keys some_future_key"):
        load_model(published, adapter=adapter)


def edit_weights(
    edit: Callable[[dict[str, torch.Tensor], str], object],
) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        edit(tensors, sorted(tensors)[0])
        save_file(tensors, folder / WEIGHTS)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / CONFIG).unlink(), rf"{CONFIG}: missing; the checkpoint folder"),
        (lambda folder: (folder / WEIGHTS).unlink(), f"expected {WEIGHTS}, found none"),
        (
            lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"),
            "pickled adapters are never loaded",
        ),
        (
            lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8]),
            "torn or not safetensors",
        ),
        *(
            (lambda folder, kind=kind: edit_json(folder / CONFIG, peft_type=kind), "such as LORA")
            for kind in (None, "NOPE", ["LORA"])
        ),
        (
            lambda folder: edit_json(folder / CONFIG, alora_invocation_tokens=[5]),
            "an activated LoRA",
        ),
        (
            edit_weights(lambda tensors, name: tensors.pop(name)),
            "does not fit the model .*q_proj.lora_A.weight is missing",
        ),
        (
            edit_weights(
                lambda tensors, name: tensors.update(
                    {name.replace("blocks.0", "blocks.9"): tensors[name].clone()}
                )
            ),
            "does not fit the model .*blocks.9.q_proj.lora_A.weight is unexpected",
        ),
        (
            edit_weights(lambda tensors, name: tensors.update({name: torch.zeros(3, 3)})),
            r"does not fit the model .*lora_A.weight is \[3, 3\], expected \[2, 64\]",
        ),
    ],
)
def test_an_adapter_that_is_not_whole_or_does_not_fit_is_refused(
    published: Path, adapter: Path, change: Callable[[Path], object], message: str
) -> None:
    change(adapter)
    with pytest.raises(CheckpointError, match=message):
        load_model(published, adapter=adapter)


def test_an_adapter_of_another_architecture_is_refused(adapter: Path, tmp_path: Path) -> None:
    dream = write_dream(tmp_path / "dream")
    edit_json(adapter / CONFIG, target_modules=["ff_proj"])
    with pytest.raises(CheckpointError, match=r"not fit the model .*Target modules"):
        load_model(dream, adapter=adapter)
    with pytest.raises(CheckpointError, match="expected a checkpoint folder, found none"):
        load_model(dream, adapter=tmp_path / "none")
