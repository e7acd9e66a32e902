"""The row of ``<slack>`` that an adapter trains: PEFT's results, at the price of a row."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from slackdlm.models.adapter import new_adapter
from slackdlm.models.identity import model_identity
from slackdlm.models.loaded import LoadedModel, fused_inputs
from slackdlm.models.loading import load_model, save_model

Write = Callable[..., Path]
ROW = "trainable_tokens_delta"


def adapt(folder: Path, **keys: Any) -> LoadedModel:
    return new_adapter(load_model(folder, **keys), rank=2, alpha=4.0, dropout=0.0)


def ids_with_slack(loaded: LoadedModel) -> torch.Tensor:
    ids = torch.randint(10, 60, (2, 9), generator=torch.Generator().manual_seed(3))
    ids[:, 4] = loaded.slack_id
    return ids


def trained_rows(loaded: LoadedModel) -> dict[str, nn.Parameter]:
    return {name: p for name, p in loaded.model.named_parameters() if ROW in name}


@torch.no_grad()
def draw_rows(loaded: LoadedModel) -> None:
    generator = torch.Generator().manual_seed(5)
    for row in trained_rows(loaded).values():
        row.copy_(torch.randn(row.shape, generator=generator))


@pytest.fixture(params=["llada", "tied", "dream", "bert", "modernbert"])
def checkpoint(request: pytest.FixtureRequest, write_kind: Callable[[str], Path]) -> Path:
    """Models with a row each, with one for both, and with a bias in the output layer."""
    return write_kind(request.param)


def test_the_rows_of_slack_are_trained_in_embedding_and_output_layer(checkpoint: Path) -> None:
    loaded = adapt(checkpoint)
    plain = load_model(checkpoint)
    embedding: Any = plain.model.get_input_embeddings()
    output: Any = plain.model.get_output_embeddings()
    rows = trained_rows(loaded)
    assert len(rows) == (1 if output.weight is embedding.weight else 2)
    for row in rows.values():
        assert row.requires_grad
        assert row.shape == (1, embedding.weight.shape[1])
    ids = ids_with_slack(loaded)
    torch.testing.assert_close(loaded.model(ids).logits, plain.model(ids).logits)


@torch.no_grad()
def test_trained_rows_mean_the_model_with_those_rows(checkpoint: Path) -> None:
    loaded, plain = adapt(checkpoint), load_model(checkpoint)
    draw_rows(loaded)
    ends: list[Any] = [plain.model.get_input_embeddings(), plain.model.get_output_embeddings()]
    rows = list(trained_rows(loaded).values())
    if len(rows) == 1:
        rows *= 2
    for end, row in zip(ends, rows, strict=True):
        end.weight[loaded.slack_id] = row[0]
    ids = ids_with_slack(loaded)
    expected = plain.model(ids)
    torch.testing.assert_close(loaded.model(ids).logits, expected.logits, atol=1e-5, rtol=1e-5)
    hidden = loaded.model(ids, logits=False).last_hidden_state
    head = fused_inputs(loaded.model, hidden, slack_id=loaded.slack_id)
    assert head is not None
    assert head.slack_row is not None
    logits = head.hidden @ head.weight.T
    logits[..., loaded.slack_id] = head.hidden @ head.slack_row
    torch.testing.assert_close(logits, expected.logits, atol=1e-5, rtol=1e-5)


def test_rows_survive_saving_loading_and_merging(checkpoint: Path, tmp_path: Path) -> None:
    loaded = adapt(checkpoint)
    draw_rows(loaded)
    loaded.model.save_pretrained(str(tmp_path / "adapter"))
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert sum(ROW in name for name in saved) == len(trained_rows(loaded))
    assert all(".lora_" in name or ROW in name for name in saved)
    again = load_model(checkpoint, adapter=tmp_path / "adapter")
    ids = ids_with_slack(loaded)
    expected = loaded.model(ids).logits
    torch.testing.assert_close(again.model(ids).logits, expected, atol=0, rtol=0)
    with again.model.disable_adapter():
        plain = load_model(checkpoint).model(ids).logits
        torch.testing.assert_close(again.model(ids).logits, plain, atol=0, rtol=0)
    merged = again.model.merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, expected, atol=1e-5, rtol=1e-5)
    save_model(replace(again, model=merged), tmp_path / "merged")
    whole = load_model(tmp_path / "merged")
    torch.testing.assert_close(whole.model(ids).logits, expected, atol=1e-5, rtol=1e-5)


def test_the_base_s_hash_does_not_know_of_an_adapter(checkpoint: Path) -> None:
    adapted = model_identity(adapt(checkpoint))
    assert adapted["sha256"] == model_identity(load_model(checkpoint))["sha256"]
    assert adapted["adapter_sha256"] is not None


def test_gradients_are_those_of_the_whole_matrices(published: Path) -> None:
    loaded, plain = adapt(published), load_model(published)
    ids = ids_with_slack(loaded)
    grads = []
    for model in (loaded.model, plain.model):
        model.train()
        F.cross_entropy(model(ids).logits.flatten(0, 1), ids.flatten()).backward()
        parts = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        grads.append(parts)
    mine = {
        name.split("transformer.")[1].split(".")[0]: g
        for name, g in grads[0].items()
        if ROW in name
    }
    for layer in ("wte", "ff_out"):
        whole = grads[1][f"model.transformer.{layer}.weight"]
        torch.testing.assert_close(mine[layer][0], whole[loaded.slack_id])


def test_rows_that_are_not_slack_s_alone_are_left_to_the_output_layer(published: Path) -> None:
    loaded = adapt(published, dtype="bfloat16")
    assert {row.dtype for row in trained_rows(loaded).values()} == {torch.float32}
    hidden = loaded.model(ids_with_slack(loaded)).last_hidden_state
    assert fused_inputs(loaded.model, hidden, slack_id=loaded.slack_id + 1) is None
    without = new_adapter(load_model(published), rank=2, alpha=4.0, dropout=0.0, train_slack=False)
    assert not trained_rows(without)
    layer = fused_inputs(without.model, hidden, slack_id=loaded.slack_id)
    assert layer is not None
    assert layer.slack_row is None
