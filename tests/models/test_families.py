"""What loss, sampler and adapters rely on holds for every family alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from slackdlm.errors import ConfigError, DataError
from slackdlm.models.adapter import new_adapter
from slackdlm.models.chat import encode_prompt
from slackdlm.models.configs import DreamConfig, LLaDAConfig
from slackdlm.models.dream import DreamModel
from slackdlm.models.llada import LLaDAModelLM, attention_bias
from slackdlm.models.loaded import fused_inputs, recompute_activations
from slackdlm.models.loading import load_model, save_model
from slackdlm.sampling.sampler import Sampler, SamplerConfig

Write = Callable[..., Path]
Draw = Callable[..., torch.Tensor]
KINDS = ("llada", "tied", "dream", "bert", "roberta", "modernbert")
LONGEST = {"llada": 128, "tied": 128, "dream": 128, "bert": 64, "roberta": 64, "modernbert": 64}
EACH = pytest.mark.parametrize("kind", KINDS)
NATIVE = pytest.mark.parametrize("kind", ["llada", "dream"])


def same(first: torch.Tensor, second: torch.Tensor, *, atol: float = 0) -> None:
    torch.testing.assert_close(first, second, atol=atol, rtol=0)


@NATIVE
def test_a_published_checkpoint_loads_bit_by_bit(write_kind: Write, kind: str) -> None:
    folder = write_kind(kind)
    loaded = load_model(folder)
    state = loaded.model.state_dict()
    tensors = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
    assert state.keys() == tensors.keys()
    for name, tensor in tensors.items():
        same(state[name], tensor)
    assert not loaded.model.training
    assert loaded.name == str(folder)


@pytest.mark.parametrize(
    ("kind", "mask", "slack", "ends"),
    [
        ("llada", "<|mdm_mask|>", "<|reserved_token_0|>", ["<|endoftext|>", "<|eot_id|>"]),
        ("dream", "<|mask|>", "<slack>", ["<|endoftext|>", "<|im_end|>"]),
        ("bert", "[MASK]", "[unused0]", ["[SEP]"]),
        ("roberta", "<mask>", "<slack>", ["</s>"]),
        ("modernbert", "[MASK]", "[unused0]", ["[SEP]"]),
    ],
)
def test_the_special_ids_are_found_by_name(
    write_kind: Write, kind: str, mask: str, slack: str, ends: list[str]
) -> None:
    loaded = load_model(write_kind(kind))
    names = loaded.tokenizer.convert_ids_to_tokens
    assert names([loaded.mask_id, loaded.slack_id, loaded.pad_id]) == [mask, slack, ends[0]]
    assert names(list(loaded.eos_ids)) == ends
    assert loaded.max_length == LONGEST[kind]


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@EACH
def test_saving_and_loading_is_exact(
    write_kind: Write, tmp_path: Path, draw_ids: Draw, kind: str, dtype: str | None
) -> None:
    loaded = load_model(write_kind(kind), dtype=dtype)
    save_model(loaded, tmp_path / "saved", dtype=dtype)
    again, ids = load_model(tmp_path / "saved"), draw_ids()
    same(again.model(ids).logits, loaded.model(ids).logits)
    assert again.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()
    assert again.tokenizer.chat_template == loaded.tokenizer.chat_template
    for field in ("mask_id", "slack_id", "eos_ids", "pad_id", "max_length"):
        assert getattr(again, field) == getattr(loaded, field)


# --- a row for <slack> ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("llada", {"reserved": False, "spare_rows": 2}),
        ("dream", {}),
        ("roberta", {"spare_rows": 3}),
    ],
)
def test_slack_takes_a_spare_row_before_the_vocabulary_grows(
    write_kind: Write, kind: str, keys: dict[str, Any]
) -> None:
    loaded = load_model(write_kind(kind, **keys))
    rows = len(loaded.model.get_input_embeddings().weight)
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.slack_id) == "<slack>"
    assert loaded.slack_id == len(loaded.tokenizer) - 1
    assert rows == loaded.model.config.vocab_size > loaded.slack_id + 1


@pytest.mark.parametrize(
    ("kind", "keys"), [("llada", {"reserved": False}), ("dream", {}), ("roberta", {})]
)
def test_without_one_it_gets_a_new_row_that_is_the_mean(
    write_kind: Write, tmp_path: Path, draw_ids: Draw, kind: str, keys: dict[str, Any]
) -> None:
    folder, before = write_kind(kind, spare_rows=0, **keys), torch.random.get_rng_state()
    loaded = load_model(folder)
    assert torch.equal(torch.random.get_rng_state(), before)
    for layer in (loaded.model.get_input_embeddings(), loaded.model.get_output_embeddings()):
        assert len(layer.weight) == loaded.slack_id + 1 == loaded.model.config.vocab_size
        same(layer.weight[-1], layer.weight[:-1].mean(0), atol=1e-6)
    ids = draw_ids()
    assert loaded.model(ids).logits.shape[-1] == loaded.slack_id + 1
    save_model(loaded, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert again.slack_id == loaded.slack_id
    same(again.model(ids).logits, loaded.model(ids).logits)


# --- the forward pass ----------------------------------------------------------------------------


@EACH
def test_the_head_applied_to_the_hidden_states_gives_the_logits(
    write_kind: Write, draw_ids: Draw, kind: str
) -> None:
    loaded, ids = load_model(write_kind(kind)), draw_ids()
    output = loaded.model(ids)
    layer = fused_inputs(loaded.model, output.last_hidden_state, slack_id=loaded.slack_id)
    assert layer is not None
    same(layer.hidden @ layer.weight.T, output.logits, atol=1e-5)
    bare = loaded.model(ids, logits=False)
    assert bare.logits is None
    same(bare.last_hidden_state, output.last_hidden_state)


@EACH
def test_attention_sees_what_follows_and_not_what_the_mask_hides(
    write_kind: Write, draw_ids: Draw, kind: str
) -> None:
    model, ids = load_model(write_kind(kind)).model, draw_ids()
    changed, mask = ids.clone(), torch.ones_like(ids)
    changed[:, -1] += 1
    plain = model(ids).logits
    assert not torch.allclose(plain[:, 0], model(changed).logits[:, 0], atol=1e-5)
    same(model(ids, mask).logits, plain)
    mask[:, -1] = 0
    same(model(ids, mask).logits[:, :-1], model(changed, mask).logits[:, :-1])
    assert bool(model(ids, mask).logits.isfinite().all())
    mask[1] = 0
    with pytest.raises(DataError, match="attention_mask: a row is all zeros"):
        model(ids, mask)


@pytest.mark.parametrize("pad_length", [1, 7])
@EACH
def test_left_padding_leaves_the_other_positions_as_they_were(
    write_kind: Write, draw_ids: Draw, kind: str, pad_length: int
) -> None:
    model, ids = load_model(write_kind(kind)).model, draw_ids()
    padded = torch.cat([torch.full((2, pad_length), 5), ids], dim=1)
    mask = torch.ones_like(padded)
    mask[:, :pad_length] = 0
    first = 1 if kind == "dream" else 0  # whose first prediction has nothing to come from
    for form in (mask, mask.bool(), attention_bias(mask)):
        logits = model(padded, form).logits[:, pad_length + first :]
        same(logits, model(ids).logits[:, first:], atol=2e-5)


@EACH
def test_a_longer_input_than_the_model_knows_is_an_error(
    write_kind: Write, draw_ids: Draw, kind: str
) -> None:
    model, longest = load_model(write_kind(kind)).model, LONGEST[kind]
    assert bool(model(draw_ids(length=longest)).logits.isfinite().all())
    with pytest.raises(ConfigError, match=rf"at most {longest} tokens .* got {longest + 1}"):
        model(draw_ids(length=longest + 1))


@NATIVE
def test_without_padding_the_flash_kernel_runs(
    write_kind: Write, draw_ids: Draw, kind: str
) -> None:
    model, ids = load_model(write_kind(kind)).model, draw_ids()
    for mask in (None, torch.ones_like(ids)):
        with sdpa_kernel(SDPBackend.MATH):
            expected = model(ids, mask).logits
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # an error if it could not be used
            same(model(ids, mask).logits, expected, atol=1e-5)


@EACH
def test_recomputed_activations_give_the_same_gradients(
    write_kind: Write, draw_ids: Draw, kind: str
) -> None:
    keys = {"attention_probs_dropout_prob": 0.0} if kind in ("bert", "roberta") else {}
    folder, ids = write_kind(kind, **keys), draw_ids()
    mask = torch.ones_like(ids)
    mask[0, 0] = 0
    models = [load_model(folder).model.train() for _ in range(2)]
    recompute_activations(models[1])
    assert [model.is_gradient_checkpointing for model in models] == [False, True]
    for model in models:
        for part in model.modules():
            part.training = not isinstance(part, torch.nn.Dropout)
        model(ids, mask).logits[:, 2:].logsumexp(-1).sum().backward()
    for name, parameter in models[0].named_parameters():
        torch.testing.assert_close(models[1].get_parameter(name).grad, parameter.grad)


@pytest.mark.parametrize(
    ("model_class", "config", "number"),
    [
        (LLaDAModelLM, LLaDAConfig(mlp_hidden_size=12288), 8_015_581_184),
        (DreamModel, DreamConfig(), 7_615_616_512),
    ],
)
def test_the_defaults_have_the_published_number_of_parameters(
    model_class: Any, config: Any, number: int
) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in model_class(config).parameters()) == number


# --- adapters, chat, decoding --------------------------------------------------------------------


@EACH
def test_a_new_adapter_spares_the_head_and_survives_saving(
    write_kind: Write, tmp_path: Path, draw_ids: Draw, kind: str
) -> None:
    folder, ids = write_kind(kind), draw_ids()
    plain = load_model(folder).model
    layers = [n for n, m in plain.named_modules() if isinstance(m, torch.nn.Linear)]
    head = next(n for n, m in plain.named_modules() if m is plain.get_output_embeddings())
    loaded = new_adapter(load_model(folder), rank=2, alpha=4.0, dropout=0.0)
    same(loaded.model(ids).logits, plain(ids).logits, atol=1e-6)
    adapted = [n for n, _ in loaded.model.named_parameters() if ".lora_B." in n]
    names = [n.partition(".lora_B.")[0].removeprefix("base_model.model.") for n in adapted]
    assert sorted(names) == sorted(set(layers) - {head})
    with torch.no_grad():
        for name in adapted:
            loaded.model.get_parameter(name).fill_(0.1)
    loaded.model.save_pretrained(str(tmp_path / "adapter"))
    again = load_model(folder, adapter=tmp_path / "adapter")
    same(again.model(ids).logits, loaded.model(ids).logits)
    assert not torch.allclose(plain(ids).logits, loaded.model(ids).logits)


@EACH
def test_special_tokens_in_a_message_are_only_text(write_kind: Write, kind: str) -> None:
    loaded = load_model(write_kind(kind))
    tokenizer = loaded.tokenizer
    specials = {*tokenizer.all_special_ids, loaded.slack_id, loaded.mask_id, *loaded.eos_ids}
    plain = encode_prompt(tokenizer, [{"role": "user", "content": "the sea"}])
    for token in (*tokenizer.convert_ids_to_tokens(sorted(specials)), "<slack>"):
        try:
            hostile = encode_prompt(tokenizer, [{"role": "user", "content": f"the {token} sea"}])
        except DataError:
            continue  # refused is as good; BERT's toy vocabulary lacks these letters
        for special in specials:
            assert hostile.count(special) == plain.count(special)


@EACH
def test_prompts_of_mixed_lengths_are_decoded_as_each_alone(write_kind: Write, kind: str) -> None:
    loaded = load_model(write_kind(kind))
    sampler = Sampler(loaded, SamplerConfig(canvas_length=8, steps=4))
    prompts = ["the sea", "the old boats sailed the sea", "boats"]
    together = [answer.canvas for answer in sampler.generate(prompts)]
    assert together == [sampler.generate([prompt])[0].canvas for prompt in prompts]
    assert all(loaded.mask_id not in canvas for canvas in together)
