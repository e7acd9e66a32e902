"""What is Dream's alone: predictions come from the position before. The rest is in test_families."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from slackdlm.models.chat import encode_dialogue, encode_prompt
from slackdlm.models.dream import align
from slackdlm.models.loading import load_model
from slackdlm.sampling.sampler import Sampler, SamplerConfig

USER = {"role": "user", "content": "Hello, world!"}
SYSTEM = {"role": "system", "content": "You sail."}
REPLY = {"role": "assistant", "content": "The boats."}


@pytest.fixture
def dream(write_kind: Callable[[str], Path]) -> Path:
    return write_kind("dream")


def test_predictions_move_one_to_the_right() -> None:
    hidden = torch.arange(4.0).reshape(1, 4, 1)
    assert align(hidden).flatten().tolist() == [0, 0, 1, 2]


def test_the_head_reads_the_hidden_state_of_the_position_before(
    dream: Path, draw_ids: Callable[[], torch.Tensor]
) -> None:
    model, ids = load_model(dream).model, draw_ids()
    raw = model.model(input_ids=ids, attention_mask={"full_attention": None}, use_cache=False)
    expected = model.lm_head(raw.last_hidden_state)
    torch.testing.assert_close(model(ids).logits[:, 1:], expected[:, :-1], atol=0, rtol=0)


def test_the_end_of_text_is_trained_like_any_token(dream: Path) -> None:
    loaded = load_model(dream)
    loaded.model(torch.full((1, 3), loaded.pad_id)).logits.logsumexp(-1).sum().backward()
    assert bool(loaded.model.get_input_embeddings().weight.grad[loaded.pad_id].any())


def test_the_published_template_is_used(dream: Path) -> None:
    tokenizer = load_model(dream).tokenizer
    for messages in ([USER], [SYSTEM, USER], [USER, REPLY, USER]):
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        assert encode_prompt(tokenizer, messages) == rendered["input_ids"]
    [turn] = encode_dialogue(tokenizer, [USER, REPLY])
    assert tokenizer.decode(turn.response_ids) == "The boats.<|im_end|>"
    rendered = tokenizer.apply_chat_template([USER, REPLY])["input_ids"]
    assert (turn.prompt_ids + turn.response_ids) == rendered[:-1]  # a line break follows


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
