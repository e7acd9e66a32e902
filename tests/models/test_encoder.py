import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from encoder_checkpoints import LONGEST, write_encoder
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, BertConfig, BertModel

from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.models import encoder
from slackdlm.models.chat import encode_dialogue, encode_prompt
from slackdlm.models.loaded import LoadedModel, fused_inputs
from slackdlm.models.loading import load_model, save_model
from slackdlm.training.config import (
    DataConfig,
    ObjectiveConfig,
    Recipe,
    TrainingConfig,
    load_recipe,
)
from slackdlm.training.model_config import ModelConfig
from slackdlm.training.prepare import prepare
from slackdlm.training.processes import this_process
from slackdlm.training.run import train

FAMILIES = ("bert", "roberta", "modernbert")
Write = Callable[..., Path]
USER = {"role": "user", "content": "the old boats sailed ?"}
REPLY = {"role": "assistant", "content": "1000 miles ."}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return lambda family, **keys: write_encoder(tmp_path / family, family, **keys)


def draw_ids(loaded: LoadedModel, *, length: int = 12) -> torch.Tensor:
    """Real tokens and masks, no padding of the family's own."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(6, len(loaded.tokenizer) - 2, (2, length), generator=generator)
    ids[:, ::3] = loaded.mask_id
    return ids


# --- the network ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_are_transformers_own(write: Write, tmp_path: Path, family: str) -> None:
    folder = write(family)
    loaded, plain = load_model(folder), AutoModelForMaskedLM.from_pretrained(folder).eval()
    ids = draw_ids(loaded)
    expected = plain(ids).logits
    width = expected.shape[-1]
    output = loaded.model(ids)
    torch.testing.assert_close(output.logits[..., :width], expected, atol=1e-6, rtol=0)
    layer = fused_inputs(loaded.model, output.last_hidden_state, slack_id=loaded.slack_id)
    assert layer is not None
    torch.testing.assert_close(layer.hidden @ layer.weight.T, output.logits, atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="cache: not implemented for encoders"):
        loaded.model(ids, store=object())
    save_model(loaded, tmp_path / "saved")
    saved = AutoModelForMaskedLM.from_pretrained(tmp_path / "saved").eval()
    torch.testing.assert_close(saved(ids).logits, output.logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_gradient_is_that_of_transformers_logits(write: Write, family: str) -> None:
    """Of the bias too, which reaches the loss as a column of the head's weight."""
    loaded = load_model(write(family, spare_rows=2))
    ids = draw_ids(loaded)
    direct, fused = (load_model(loaded.name).model for _ in range(2))
    direct(ids).logits.logsumexp(-1).sum().backward()
    states = fused(ids, logits=False).last_hidden_state
    layer = fused_inputs(fused, states, slack_id=loaded.slack_id)
    assert layer is not None
    (layer.hidden @ layer.weight.T).logsumexp(-1).sum().backward()
    for name, parameter in direct.named_parameters():
        other = fused.get_parameter(name).grad
        torch.testing.assert_close(other, parameter.grad, atol=2e-5, rtol=1e-4)
    bias = direct.get_output_embeddings().bias
    assert bool(bias.grad.any())


# --- loading and saving --------------------------------------------------------------------------


def test_what_a_published_bert_holds_beside_the_masked_language_model_is_left_out(
    write: Write,
) -> None:
    folder = write("bert")
    before = load_model(folder).model.state_dict()
    tensors = load_file(folder / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    assert old.keys() != tensors.keys()
    old |= {"bert.pooler.dense.weight": torch.zeros(32, 32)}
    old |= {"cls.seq_relationship.weight": torch.zeros(2, 32)}
    old |= {"bert.embeddings.position_ids": torch.arange(LONGEST)[None]}
    old |= {"cls.predictions.decoder.weight": old["bert.embeddings.word_embeddings.weight"].clone()}
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    after = load_model(folder).model.state_dict()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("is_decoder", True, "is_decoder = True is not supported"),
        ("is_encoder_decoder", True, "is_encoder_decoder = True is not supported"),
        ("position_embedding_type", "relative_key", "'relative_key' is not supported"),
        ("num_hidden_layers", 1, "unexpected: bert.encoder.layer.1"),
        ("vocab_size", 70, r"weights do not fit its config\.json"),
        ("tie_word_embeddings", False, r"weights do not fit its config\.json"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    write: Write, edit: Callable[..., None], key: str, value: object, message: str
) -> None:
    folder = write("bert")
    edit(folder / "config.json", **{key: value})
    with pytest.raises((ConfigError, CheckpointError), match=message):
        load_model(folder)


def test_a_body_without_a_head_is_named(write: Write) -> None:
    folder = write("bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "model.safetensors").unlink()
    BertModel(BertConfig(**config)).save_pretrained(folder)
    message = r"config.json \(missing: .*; it is a BertModel, not a model with a masked-LM"
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_a_tokenizer_without_a_mask_is_refused(write: Write, edit: Callable[..., None]) -> None:
    folder = write("bert")
    edit(folder / "tokenizer_config.json", mask_token=None)
    with pytest.raises(CheckpointError, match="expected a tokenizer with a mask_token and a sep"):
        load_model(folder)


def test_weights_that_are_not_finite_are_an_error(write: Write) -> None:
    folder = write("bert")
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.bias"][3] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="its logits are not finite"):
        load_model(folder)


@pytest.mark.parametrize("broken", ["head", "positions"])
def test_an_architecture_the_protocol_does_not_fit_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    folder = write("roberta")
    if broken == "head":
        monkeypatch.setattr(
            "slackdlm.models.encoder._itself", lambda hidden: hidden + 0.01 * hidden.abs()
        )
    else:
        monkeypatch.setattr("slackdlm.models.encoder._first_position", lambda model: 0)
    with pytest.raises(ConfigError, match="RobertaForMaskedLM: not supported, since its head"):
        load_model(folder)


# --- chat, decoding, training --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "begin", "end"),
    [("bert", "[CLS]", "[SEP]"), ("roberta", "<s>", "</s>"), ("modernbert", "[CLS]", "[SEP]")],
)
def test_the_plain_format_names_the_speakers_and_ends_turns_with_the_separator(
    write: Write, family: str, begin: str, end: str
) -> None:
    tokenizer = load_model(write(family)).tokenizer
    first, second = encode_dialogue(tokenizer, [USER, REPLY, USER, REPLY])
    prompt, reply = map(tokenizer.decode, (first.prompt_ids, first.response_ids[:-1]))
    squeezed = "".join(prompt.split()).lower()
    assert squeezed == f"{begin}user:theoldboatssailed?{end}assistant:".lower()
    if family != "bert":  # whose tokenizer knows no line breaks
        assert prompt == f"{begin}User:\n{USER['content']}{end}Assistant:\n"
    assert reply.replace(" ", "") == "1000miles."
    assert first.response_ids[-1] == tokenizer.sep_token_id
    assert second.prompt_ids[: len(first.prompt_ids)] == first.prompt_ids
    assert second.prompt_ids == encode_prompt(tokenizer, [USER, REPLY, USER])


@pytest.mark.parametrize("objective", ["{kind: ce}", "{kind: slack_ctc, slack_ratio: [0.0, 0.5]}"])
def test_a_modernbert_is_trained_from_a_recipe(
    write: Write, tmp_path: Path, objective: str
) -> None:
    folder = write("modernbert")
    before = load_file(folder / "model.safetensors")
    lines = [json.dumps({"prompt": "the sea ?", "response": "the old boats ."})] * 12
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{path: {folder}}}\n"
        f"data: {{train: {tmp_path / 'data.jsonl'}, max_prompt_length: 24, canvas_length: 16}}\n"
        f"objective: {objective}\n"
        "training: {steps: 30, batch_size: 4, learning_rate: 3e-3, eval_samples: 2, save_every: 0}\n"
    )
    recipe = load_recipe(tmp_path / "recipe.yaml")
    result = train(recipe, output=tmp_path / "run", progress=False)
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    losses = [r["loss"] for r in map(json.loads, lines) if "loss" in r]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert result.eval_ce is not None
    trained = load_model(tmp_path / "run" / "model")
    assert isinstance(trained.model, encoder.EncoderProtocol)
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert not torch.equal(after["decoder.bias"], before["decoder.bias"])


def test_every_process_reads_an_encoder_since_its_buffers_are_not_sent(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write("modernbert")
    row = json.dumps({"prompt": "the sea ?", "response": "the old boats ."})
    (tmp_path / "data.jsonl").write_text(f"{row}\n" * 12)
    recipe = Recipe(
        model=ModelConfig(path=str(folder)),
        data=DataConfig(train=str(tmp_path / "data.jsonl"), max_prompt_length=24, canvas_length=16),
        objective=ObjectiveConfig(kind="ce"),
        training=TrainingConfig(steps=1, batch_size=4, eval_samples=2),
    )
    this_process()
    monkeypatch.setitem(PartialState._shared_state, "process_index", 1)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    here, there = prepare(recipe)[0].model, load_model(folder, dtype="float32").model
    for one, other in zip(here.parameters(), there.parameters(), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(here.buffers(), there.buffers(), strict=True):
        assert torch.equal(one, other)
