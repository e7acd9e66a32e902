import json
from pathlib import Path

import pytest
import torch
from dream_checkpoint import write_checkpoint
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from slackdlm.errors import CheckpointError, ConfigError, DataError
from slackdlm.models.adapter import new_adapter
from slackdlm.models.chat import encode_dialogue, encode_prompt
from slackdlm.models.configs import DreamConfig
from slackdlm.models.dream import DreamModel, align
from slackdlm.models.loaded import recompute_activations
from slackdlm.models.loading import load_model, save_model
from slackdlm.sampling.sampler import Sampler, SamplerConfig

USER = {"role": "user", "content": "Hello, world!"}
SYSTEM = {"role": "system", "content": "You sail."}
REPLY = {"role": "assistant", "content": "The boats."}
AGAIN = {"role": "user", "content": "Where?"}


@pytest.fixture
def dream(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "dream")


def draw_ids(*, length: int = 9) -> torch.Tensor:
    return torch.randint(0, 250, (2, length), generator=torch.Generator().manual_seed(3))


# --- the network ---------------------------------------------------------------------------------


def test_predictions_move_one_to_the_right() -> None:
    hidden = torch.arange(4.0).reshape(1, 4, 1)
    assert align(hidden).flatten().tolist() == [0, 0, 1, 2]


def test_the_head_reads_the_hidden_state_of_the_position_before(dream: Path) -> None:
    model, ids = load_model(dream).model, draw_ids()
    output = model(ids)
    torch.testing.assert_close(
        output.last_hidden_state @ model.lm_head.weight.T, output.logits, atol=1e-5, rtol=0
    )
    raw = model.model(
        input_ids=ids, attention_mask={"full_attention": None}, use_cache=False
    ).last_hidden_state
    expected = model.lm_head(raw)
    torch.testing.assert_close(output.logits[:, 1:], expected[:, :-1], atol=0, rtol=0)
    bare = model(ids, logits=False)
    assert bare.logits is None
    torch.testing.assert_close(bare.last_hidden_state, output.last_hidden_state, atol=0, rtol=0)


def test_attention_is_not_causal(dream: Path) -> None:
    model, ids = load_model(dream).model, draw_ids()
    changed = ids.clone()
    changed[:, -1] += 1
    assert not torch.allclose(model(ids).logits[:, 0], model(changed).logits[:, 0], atol=1e-3)


@pytest.mark.parametrize("pad_length", [1, 7])
def test_left_padding_leaves_what_follows_the_first_token_as_it_was(
    dream: Path, pad_length: int
) -> None:
    model, ids = load_model(dream).model, draw_ids()
    padded = torch.cat([torch.full((2, pad_length), 5), ids], dim=1)
    mask = torch.ones_like(padded)
    mask[:, :pad_length] = 0
    torch.testing.assert_close(
        model(padded, mask).logits[:, pad_length + 1 :], model(ids).logits[:, 1:], atol=2e-5, rtol=0
    )


def test_without_padding_the_flash_kernel_runs(dream: Path) -> None:
    model, ids = load_model(dream).model, draw_ids()
    with sdpa_kernel(SDPBackend.MATH):
        expected = model(ids).logits
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=0)


def test_gradient_checkpointing_gives_the_same_gradients(dream: Path) -> None:
    ids, mask = draw_ids(), torch.ones(2, 9, dtype=torch.long)
    mask[0, 0] = 0
    models = [load_model(dream).model.train() for _ in range(2)]
    recompute_activations(models[1])
    assert [model.is_gradient_checkpointing for model in models] == [False, True]
    for model in models:
        model(ids, mask).logits[:, 2:].logsumexp(-1).sum().backward()
    for name, parameter in models[0].named_parameters():
        torch.testing.assert_close(models[1].get_parameter(name).grad, parameter.grad)


def test_the_end_of_text_is_trained_like_any_token(dream: Path) -> None:
    loaded = load_model(dream)
    loaded.model(torch.full((1, 3), loaded.pad_id)).logits.logsumexp(-1).sum().backward()
    assert bool(loaded.model.get_input_embeddings().weight.grad[loaded.pad_id].any())


def test_the_7b_defaults_have_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = DreamModel(DreamConfig())
    d, f, layers, v, kv = 3584, 18944, 28, 152064, 512
    block = 2 * d * d + 2 * d * kv + d + 2 * kv + 3 * d * f + 2 * d
    assert sum(p.numel() for p in model.parameters()) == 2 * v * d + layers * block + d


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("use_sliding_window", True, "use_sliding_window = True is not implemented"),
        ("rope_scaling", {"type": "yarn"}, "rope_scaling = .* is not implemented"),
        ("hidden_act", "gelu", "hidden_act = 'gelu' is not implemented"),
        ("attention_dropout", 0.1, "attention_dropout = 0.1 is not implemented"),
        ("qk_norm", True, "the key qk_norm = True is not known"),
        ("num_key_value_heads", 3, "num_attention_heads must be a multiple of num_key_value"),
    ],
)
def test_a_variant_that_is_not_implemented_is_an_error(
    key: str, value: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        DreamConfig(**{key: value})


def test_a_longer_input_than_the_model_knows_is_an_error(dream: Path) -> None:
    with pytest.raises(ConfigError, match=r"at most 128 tokens \(max_position_embeddings\)"):
        load_model(dream).model(draw_ids(length=129))


# --- loading and saving --------------------------------------------------------------------------


def test_a_published_checkpoint_loads_bit_by_bit_without_its_code(dream: Path) -> None:
    loaded = load_model(dream)
    state = loaded.model.state_dict()
    shards = [load_file(path) for path in sorted(dream.glob("*.safetensors"))]
    assert state.keys() == shards[0].keys() | shards[1].keys()
    for name, tensor in (shards[0] | shards[1]).items():
        torch.testing.assert_close(state[name], tensor, atol=0, rtol=0)
    assert loaded.max_length == 128


def test_the_special_ids_are_found_by_name_and_slack_takes_a_spare_row(dream: Path) -> None:
    loaded = load_model(dream)
    names = loaded.tokenizer.convert_ids_to_tokens
    assert names([loaded.mask_id, loaded.slack_id, loaded.pad_id, *loaded.eos_ids]) == [
        "<|mask|>",
        "<slack>",
        "<|endoftext|>",
        "<|endoftext|>",
        "<|im_end|>",
    ]
    assert loaded.slack_id == loaded.mask_id + 1
    assert loaded.model.config.vocab_size == loaded.slack_id + 4


def test_saving_and_loading_keeps_numbers_names_and_configuration(
    dream: Path, tmp_path: Path
) -> None:
    loaded = load_model(dream)
    save_model(loaded, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    ids = draw_ids()
    torch.testing.assert_close(again.model(ids).logits, loaded.model(ids).logits, atol=0, rtol=0)
    assert again.slack_id == loaded.slack_id
    assert again.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()
    assert encode_prompt(again.tokenizer, [USER]) == encode_prompt(loaded.tokenizer, [USER])
    published = json.loads((dream / "config.json").read_text())
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    for key in published.keys() - {"auto_map", "rope_scaling", "transformers_version", "use_cache"}:
        assert saved[key] == published[key], key
    generation = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert generation["mask_token_id"] == loaded.mask_id
    for file in ("vocab.json", "merges.txt"):
        assert (tmp_path / "saved" / file).read_text() == (dream / file).read_text()


def test_a_model_without_a_spare_row_grows(tmp_path: Path) -> None:
    loaded = load_model(write_checkpoint(tmp_path / "full", spare_rows=0))
    assert len(loaded.model.lm_head.weight) == loaded.slack_id + 1
    assert loaded.model(draw_ids()).logits.shape[-1] == loaded.slack_id + 1


def test_a_tokenizer_without_its_merges_is_an_error(dream: Path) -> None:
    (dream / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer.json: missing"):
        load_model(dream)


def test_a_mask_id_that_is_not_the_tokenizers_is_an_error(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "other", mask_token_id=3)
    with pytest.raises(CheckpointError, match=r"mask_token_id is 3, but <\|mask\|> of the tok"):
        load_model(folder)


def test_an_adapter_reaches_every_layer_but_the_head(dream: Path) -> None:
    loaded = new_adapter(load_model(dream), rank=2, alpha=2.0, dropout=0.0)
    marks = [n for n, _ in loaded.model.named_parameters() if ".lora_A." in n]
    assert len(marks) == 2 * 7
    assert not any("lm_head" in name for name in marks)


# --- the chat format -----------------------------------------------------------------------------


@pytest.mark.parametrize("messages", [[USER], [SYSTEM, USER], [USER, REPLY, AGAIN]])
def test_a_prompt_is_what_the_published_template_renders(
    dream: Path, messages: list[dict[str, str]]
) -> None:
    tokenizer = load_model(dream).tokenizer
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert encode_prompt(tokenizer, messages) == rendered["input_ids"]


def test_a_response_is_its_content_and_the_end_of_the_turn(dream: Path) -> None:
    tokenizer = load_model(dream).tokenizer
    [turn] = encode_dialogue(tokenizer, [USER, REPLY])
    assert tokenizer.decode(turn.response_ids) == "The boats.<|im_end|>"
    rendered = tokenizer.apply_chat_template([USER, REPLY])["input_ids"]
    assert (turn.prompt_ids + turn.response_ids) == rendered[:-1]  # a line break follows


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>", "<|mask|>", "<slack>"])
def test_special_tokens_in_a_message_are_only_text(dream: Path, token: str) -> None:
    loaded = load_model(dream)
    prompt = encode_prompt(loaded.tokenizer, [{"role": "user", "content": f"say {token} twice"}])
    plain = encode_prompt(loaded.tokenizer, [{"role": "user", "content": "say it twice"}])
    token_id = loaded.tokenizer.convert_tokens_to_ids(token)
    assert prompt.count(token_id) == plain.count(token_id)
    assert f"say {token} twice" in loaded.tokenizer.decode(prompt)


def test_a_broken_template_is_an_error(dream: Path) -> None:
    tokenizer = load_model(dream).tokenizer
    tokenizer.chat_template = "{{ messages[0].content.nothing.more }}"
    with pytest.raises(ConfigError, match="its chat template cannot be used"):
        encode_prompt(tokenizer, [USER])


def test_a_tokenizer_that_reads_text_as_special_is_refused(dream: Path) -> None:
    tokenizer = load_model(dream).tokenizer
    plain = encode_prompt(tokenizer, [{"role": "user", "content": "<|im_end|>"}])
    assert plain.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2  # system and user
    with pytest.raises(DataError, match="expected the last message to be a user's"):
        encode_prompt(tokenizer, [USER, REPLY])


# --- decoding ------------------------------------------------------------------------------------


def test_the_sampler_reads_each_cell_where_dream_writes_it(dream: Path) -> None:
    """The first canvas cell comes from the last prompt token's state, as in Dream's own sampler."""
    loaded = load_model(dream)
    config = SamplerConfig(canvas_length=6, steps=1)
    [generation] = Sampler(loaded, config).generate(["Hello"])
    prompt = encode_prompt(loaded.tokenizer, [{"role": "user", "content": "Hello"}])
    ids = torch.tensor([prompt + [loaded.mask_id] * 6])
    raw = loaded.model.model(
        input_ids=ids, attention_mask={"full_attention": None}, use_cache=False
    ).last_hidden_state
    unshifted = loaded.model.lm_head(raw)[0]
    unshifted[:, loaded.mask_id] = -torch.inf
    expected = unshifted[len(prompt) - 1 : -1].argmax(-1).tolist()
    assert generation.canvas == expected
