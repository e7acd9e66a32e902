import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from slackdlm.errors import ConfigError
from slackdlm.models.adapter import new_adapter
from slackdlm.models.loaded import recompute_activations
from slackdlm.models.loading import load_model, save_model

Draw = Callable[[], torch.Tensor]
HEAD = "model.transformer.ff_out"


# --- saving --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_model_is_saved_in_the_type_asked_for_and_stays_as_it_is(
    published: Path, tmp_path: Path, dtype: str
) -> None:
    loaded = load_model(published)
    save_model(loaded, tmp_path / "saved", dtype=dtype)
    assert loaded.model.dtype == torch.float32
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == dtype
    again = load_model(tmp_path / "saved")
    assert again.model.dtype == getattr(torch, dtype)
    for name, tensor in load_model(published, dtype=dtype).model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor, atol=0, rtol=0)


def test_a_large_model_is_saved_as_shards_under_the_published_names(
    published: Path, tmp_path: Path
) -> None:
    save_model(load_model(published), tmp_path / "saved", max_shard_size="200KB")
    index = json.loads((tmp_path / "saved" / "model.safetensors.index.json").read_text())
    original = json.loads((published / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == original["weight_map"].keys()
    assert index["metadata"]["total_size"] == original["metadata"]["total_size"]
    shards = sorted((tmp_path / "saved").glob("*.safetensors"))
    assert len(shards) > 2
    saved = {k: v for shard in shards for k, v in load_file(shard).items()}
    for name, tensor in load_model(published).model.state_dict().items():
        torch.testing.assert_close(saved[name], tensor, atol=0, rtol=0)


# --- four bits -----------------------------------------------------------------------------------


def test_four_bits_without_bitsandbytes_is_an_error(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slackdlm.models.weights.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"4bit needs bitsandbytes, .* 'slackdlm\[qlora\]'"):
        load_model(published, quantization="4bit")


@pytest.fixture
def quantised(published: Path) -> Path:
    pytest.importorskip("bitsandbytes")
    return published


def test_four_bits_spare_the_output_layer_and_nothing_else(quantised: Path, draw_ids: Draw) -> None:
    model = load_model(quantised, quantization="4bit", dtype="float32").model
    linear = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert len(linear) == 15
    assert {n for n, m in linear.items() if type(m) is torch.nn.Linear} == {HEAD}
    exact = load_model(quantised).model
    ids = draw_ids()
    error = (model(ids).logits - exact(ids).logits).std() / exact(ids).logits.std()
    assert 0 < error < 0.4


def test_an_adapter_on_four_bits_alone_is_trained(
    quantised: Path, tmp_path: Path, draw_ids: Draw
) -> None:
    loaded = load_model(quantised, quantization="4bit", dtype="float32")
    with pytest.raises(ConfigError, match="save_model: the model is quantised"):
        save_model(loaded, tmp_path / "saved")
    loaded = new_adapter(loaded, rank=2, alpha=4.0, dropout=0.0)
    ids = draw_ids()
    trained = {n: p for n, p in loaded.model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name or "trainable_tokens" in name for name in trained)
    recompute_activations(loaded.model)
    loaded.model.train()
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        logits = loaded.model(ids).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    loaded.model.save_pretrained(str(tmp_path / "adapter"))
    loaded.model.eval()
    again = load_model(
        quantised, adapter=tmp_path / "adapter", quantization="4bit", dtype="float32"
    )
    with torch.no_grad():  # with gradients another kernel may run
        torch.testing.assert_close(again.model(ids).logits, loaded.model(ids).logits)
