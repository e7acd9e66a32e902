"""Whatever PEFT can put on a model is what decodes, rates and trains: its own logits say what is right."""

import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaLoraConfig,
    BOFTConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    PolyConfig,
    PromptTuningConfig,
    TrainableTokensConfig,
    VeraConfig,
)
from safetensors.torch import save_file
from torch import Tensor

from slackdlm import masked_ce_loss, slack_ctc_loss
from slackdlm.errors import CheckpointError
from slackdlm.harness.likelihood import Target, log_likelihood_bounds
from slackdlm.models import record
from slackdlm.models.chat import encode_prompt
from slackdlm.models.loaded import LoadedModel, has_plain_head
from slackdlm.models.loading import load_model, save_model
from slackdlm.models.record import base_sha256
from slackdlm.sampling.sampler import Sampler, SamplerConfig
from slackdlm.training.config import ObjectiveConfig
from slackdlm.training.draw import CanvasSpec
from slackdlm.training.step_loss import evaluated_samples, sample_losses

Write = Callable[..., Path]


def lora(**keys: Any) -> LoraConfig:
    return LoraConfig(r=2, lora_alpha=8, **keys)


def on_two(kind: type[Any], **keys: Any) -> Callable[..., PeftConfig]:
    return lambda _, head, inner: kind(target_modules=[head, inner], **keys)


# Of the full names of embedding, output layer and an inner layer.
KINDS: dict[str, Callable[[str, str, str], PeftConfig]] = {
    "lora": lambda _, head, inner: lora(target_modules=[head, inner]),
    "rslora": lambda _, head, inner: lora(target_modules=[head, inner], use_rslora=True),
    "dora": lambda _, head, inner: lora(target_modules=[head], use_dora=True),
    "lora_bias": lambda _, head, inner: lora(target_modules=[head], lora_bias=True),
    "biases": lambda _, head, inner: lora(target_modules=[head, inner], bias="all"),
    "patterns": lambda _, head, inner: lora(
        target_modules=[head, inner], rank_pattern={head: 3}, alpha_pattern={head: 7}
    ),
    "pissa": lambda _, head, inner: lora(target_modules=[head], init_lora_weights="pissa"),
    "parameters": lambda _, head, inner: lora(
        target_modules=[inner], target_parameters=[f"{head}.weight"]
    ),
    "saved head": lambda _, head, inner: lora(target_modules=[inner], modules_to_save=[head]),
    "saved ends": lambda embedding, head, inner: lora(
        target_modules=[inner], modules_to_save=[embedding, head]
    ),
    "embedding": lambda embedding, head, inner: lora(target_modules=[embedding, head]),
    "saved embedding": lambda embedding, head, _: lora(
        target_modules=[head], modules_to_save=[embedding]
    ),
    "ia3": on_two(IA3Config, feedforward_modules=[]),
    "vera": on_two(VeraConfig, r=4),
    "oft": on_two(OFTConfig, oft_block_size=4, r=0),
    "boft": on_two(BOFTConfig, boft_block_size=2),
    "loha": on_two(LoHaConfig, r=2),
    "lokr": on_two(LoKrConfig, r=2),
    "adalora": on_two(AdaLoraConfig, total_step=10),
    "tokens": lambda _, head, inner: TrainableTokensConfig(
        token_indices=[30, 31], target_modules=[head]
    ),
}


FAMILIES = ("llada", "tied", "dream", "bert")
# Every kind of adapter and every family, but a third of the pairs; all of them with -m slow.
PAIRS = [
    pytest.param(kind, family, marks=[pytest.mark.slow] if (i + j) % 3 and kind != "tokens" else [])
    for i, kind in enumerate(KINDS)
    for j, family in enumerate(FAMILIES)
    if kind != "tokens" or family == "llada"  # elsewhere they are refused, see below
]


def names_of(folder: Path) -> tuple[str, str, str]:
    network: Any = load_model(folder).model
    names = {id(module): name for name, module in network.named_modules()}
    ends = (network.get_input_embeddings(), network.get_output_embeddings())
    inner = next(n for n in names.values() if n.rpartition(".")[2] in ("q_proj", "query"))
    return names[id(ends[0])], names[id(ends[1])], inner


def write_adapter(base: Path, config: PeftConfig, folder: Path) -> Path:
    """Made by PEFT alone, every weight of it away from where it began."""
    network: Any = load_model(base).model
    network.name_or_path = str(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, of what is rare
        adapted = PeftModel(network, config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in (p for p in adapted.parameters() if p.requires_grad):
            size = max(float(value.abs().mean()), 0.05)
            value += size * torch.randn(value.shape, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted.save_pretrained(str(folder))
    return folder


def by_peft(base: Path, adapter: Path, *, is_trainable: bool = False) -> PeftModel:
    network: Any = load_model(base).model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted: Any = PeftModel.from_pretrained(network, str(adapter), is_trainable=is_trainable)
    return adapted.eval()


def draw_batch(loaded: LoadedModel) -> dict[str, Tensor]:
    """Two canvases of six positions behind prompts of three; one ends in padding."""
    mask, slack, pad = loaded.mask_id, loaded.slack_id, loaded.pad_id
    prompts = torch.tensor([[20, 21, 22], [23, 24, 25]])
    noisy = torch.tensor([[mask, 31, mask, slack, mask, mask], [mask, mask, 42, mask, mask, pad]])
    inputs = torch.cat([prompts, noisy], dim=1)
    return {
        "input_ids": inputs,
        "attention_mask": torch.ones_like(inputs),
        "noisy": noisy,
        "clean": torch.tensor([[30, 31, slack, slack, 32, 33], [40, 41, 42, slack, pad, pad]]),
        "targets": torch.tensor([[30, 31, 32, 33], [40, 41, 42, -100]]),
        "ctc_lengths": torch.tensor([6, 4]),
        "target_lengths": torch.tensor([4, 3]),
        "ce_weights": torch.tensor([[0.5] * 6, [0.5, 0.5, 0.5, 0.5, 1.0, 1.0]]),
        "loss_weights": torch.tensor([0.5, 2.0]),
    }


def spec_of(loaded: LoadedModel) -> CanvasSpec:
    return CanvasSpec(
        objective=ObjectiveConfig(kind="mixed", ctc_weight=0.5, slack_ratio=(0.0, 0.5)),
        canvas_length=6,
        mask_id=loaded.mask_id,
        slack_id=loaded.slack_id,
        pad_id=loaded.pad_id,
    )


def plain_losses(logits: Tensor, batch: dict[str, Tensor], loaded: LoadedModel) -> Tensor:
    """Put together from the losses that take all logits."""
    lengths = batch["ctc_lengths"], batch["target_lengths"]
    ids = {"mask_id": loaded.mask_id, "slack_id": loaded.slack_id}
    losses = 0.5 * slack_ctc_loss(logits, batch["noisy"], batch["targets"], *lengths, **ids)
    for i in range(6):
        at = slice(i, i + 1)
        ce = masked_ce_loss(
            logits[:, at],
            batch["noisy"][:, at],
            batch["clean"][:, at],
            torch.ones(2, dtype=torch.long),
            mask_id=loaded.mask_id,
        )
        losses = losses + batch["ce_weights"][:, i] * ce
    return batch["loss_weights"] * losses


@pytest.mark.system
@pytest.mark.parametrize(("kind", "family"), PAIRS)
def test_decoded_rated_trained_and_merged_is_what_peft_s_logits_say(
    kind: str, family: str, write_kind: Write, tmp_path: Path
) -> None:
    folder = write_kind(family)
    adapter = write_adapter(folder, KINDS[kind](*names_of(folder)), tmp_path / "adapter")
    loaded, reference = load_model(folder, adapter=adapter), by_peft(folder, adapter)

    # Decoding: every cell in one step.
    sampler = Sampler(loaded, SamplerConfig(canvas_length=8, steps=1))
    prompt = encode_prompt(loaded.tokenizer, [{"role": "user", "content": "the boats"}])
    ids = torch.tensor([[*prompt, *[loaded.mask_id] * 8]])
    logits = reference(ids).logits[0, -8:].detach()
    torch.testing.assert_close(loaded.model(ids).logits[0, -8:], logits, atol=1e-5, rtol=1e-5)
    allowed = logits.clone()
    allowed[:, loaded.mask_id] = -torch.inf
    assert sampler.generate(["the boats"])[0].canvas == allowed.argmax(1).tolist()

    # Rating: one token, so one mask.
    rated = log_likelihood_bounds(loaded, [Target(prompt, [30], 0)], num_samples=1, batch_size=1)
    one = reference(ids[:, : len(prompt) + 1]).logits[0, -1].detach()
    one[[loaded.mask_id, loaded.slack_id]] = -torch.inf
    assert rated == [pytest.approx(float(one.log_softmax(0)[30]), rel=1e-5)]

    # Training it further.
    loaded.model.set_adapter("default")
    reference = by_peft(folder, adapter, is_trainable=True)
    batch, spec = draw_batch(loaded), spec_of(loaded)
    ours = sample_losses(loaded.model, loaded.model, batch, spec=spec)
    theirs = plain_losses(reference(batch["input_ids"]).logits[:, -6:], batch, loaded)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
    evaluated = evaluated_samples(loaded.model, batch, spec=spec)[0]
    torch.testing.assert_close(evaluated, theirs.detach(), atol=1e-4, rtol=1e-5)
    ours.sum().backward()
    theirs.sum().backward()
    wanted = {n: p.grad for n, p in reference.named_parameters() if p.grad is not None}
    grads = {n: p.grad for n, p in loaded.model.named_parameters() if p.grad is not None}
    assert grads.keys() == wanted.keys()
    assert any(".decoder" in n or "lm_head" in n or "transformer.ff_out" in n for n in grads)
    torch.testing.assert_close(grads, wanted, atol=1e-4, rtol=1e-4)

    # Merging.
    if kind == "lora_bias" and family != "bert":
        return  # PEFT cannot: there is no bias to add it to
    merged = load_model(folder, adapter=adapter)
    whole: Any = merged.model
    save_model(replace(merged, model=whole.merge_and_unload()), tmp_path / "merged")
    again = load_model(tmp_path / "merged").model(ids).logits[0, -8:]
    torch.testing.assert_close(again, logits, atol=1e-4, rtol=1e-4)


def test_dropout_in_front_of_the_output_layer_is_peft_s(write_kind: Write, tmp_path: Path) -> None:
    base = write_kind("llada")
    head = names_of(base)[1]
    adapter = write_adapter(
        base, lora(target_modules=[head], lora_dropout=0.5), tmp_path / "adapter"
    )
    loaded = load_model(base, adapter=adapter)
    loaded.model.set_adapter("default")
    batch, spec = draw_batch(loaded), spec_of(loaded)
    rows = batch["noisy"] == loaded.mask_id
    hidden = loaded.model(batch["input_ids"], logits=False).last_hidden_state[:, -6:]
    layer: Any = by_peft(base, adapter, is_trainable=True).train().get_output_embeddings()
    loaded.model.train()
    torch.manual_seed(3)
    ours = sample_losses(loaded.model, loaded.model, batch, spec=spec)
    ours.sum().backward()
    torch.manual_seed(3)
    drawn = layer(hidden[rows][None])[0]
    logits = torch.zeros(*rows.shape, drawn.shape[1]).index_put((rows,), drawn)
    theirs = plain_losses(logits, batch, loaded)
    theirs.sum().backward()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    mine: Any = loaded.model.get_output_embeddings()
    for part in ("lora_A", "lora_B"):
        grads = [getattr(x, part)["default"].weight.grad for x in (mine, layer)]
        torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-4)


def test_an_adapter_switched_off_leaves_the_model(write_kind: Write, tmp_path: Path) -> None:
    base = write_kind("bert")
    config = KINDS["saved head"](*names_of(base))
    loaded = load_model(base, adapter=write_adapter(base, config, tmp_path / "adapter"))
    batch = draw_batch(loaded)
    plain = load_model(base).model
    expected = sample_losses(plain, plain, batch, spec=spec_of(loaded))
    model: Any = loaded.model
    with model.disable_adapter():
        losses = sample_losses(model, model, batch, spec=spec_of(loaded))
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)
    assert not has_plain_head(model, slack_id=loaded.slack_id)


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        (
            "bert",
            lambda names: PromptTuningConfig(num_virtual_tokens=3),
            r"PROMPT_TUNING puts virtual tokens in front of the input \(prompt learning\)",
        ),
        ("bert", lambda names: PolyConfig(target_modules=[names[2]]), "POLY is more than an adap"),
        *(
            (
                family,
                lambda names, end=end: lora(
                    target_modules=[names[2]], trainable_token_indices={names[end]: [30]}
                ),
                "beside an output layer with a bias, or tied to the embedding, is not supported",
            )
            for family, end in (("bert", 1), ("tied", 0))
        ),
        *(
            (
                family,
                lambda names: TrainableTokensConfig(target_modules=[names[0]], token_indices=[30]),
                "or tied to the embedding, is not supported",
            )
            for family in ("bert", "tied")
        ),
        (
            "llada",
            lambda names: lora(target_modules=[names[2]], init_lora_weights="pissa_niter_4"),
            "pissa_niter draws the base's weights anew",
        ),
        (
            "bert",
            lambda names: lora(target_modules=["query"], layer_replication=[[0, 2], [1, 2]]),
            "layer_replication makes another network",
        ),
    ],
)
def test_what_cannot_be_peft_s_is_refused_by_name(
    family: str,
    config: Callable[[tuple[str, str, str]], PeftConfig],
    message: str,
    write_kind: Write,
    tmp_path: Path,
) -> None:
    base = write_kind(family)
    adapter = write_adapter(base, config(names_of(base)), tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=message):
        load_model(base, adapter=adapter)


# --- the model that an adapter is for --------------------------------------------------------------


def test_an_adapter_of_peft_s_says_that_its_base_is_not_known(
    write_kind: Write, edit: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    base = write_kind("llada")
    adapter = write_adapter(base, KINDS["lora"](*names_of(base)), tmp_path / "adapter")
    load_model(base, adapter=adapter, device="meta")
    assert not caplog.records
    load_model(base, adapter=adapter)
    assert "no record of its base's weights" in caplog.text
    assert "its configuration names" not in caplog.text
    edit(adapter / "adapter_config.json", base_model_name_or_path="GSAI-ML/LLaDA-8B-Base")
    load_model(base, adapter=adapter)
    assert "; its configuration names GSAI-ML/LLaDA-8B-Base" in caplog.text


def test_a_hash_reads_large_tensors_in_pieces_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_WHOLE", 64)
    monkeypatch.setattr(record, "_PIECE", 8)
    hashes: set[str] = set()
    for changed in (None, 0, 998, 999):
        values = torch.zeros(1000)
        if changed is not None:
            values[changed] = 1.0
        save_file({"a": values, "b": torch.zeros(3)}, tmp_path / "model.safetensors")
        hashes.add(base_sha256(tmp_path))
    assert len(hashes) == 4
    folder = tmp_path / "shards"
    folder.mkdir()
    save_file({"a": values}, folder / "one.safetensors")
    save_file({"b": torch.zeros(3)}, folder / "two.safetensors", metadata={"format": "pt"})
    places = {"a": "one.safetensors", "b": "two.safetensors"}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert base_sha256(folder) in hashes
