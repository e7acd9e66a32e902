from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from slackdlm.errors import ConfigError, DataError
from slackdlm.models.chat import encode_dialogue, encode_prompt
from slackdlm.models.special_tokens import SPECIAL_TOKENS, special_id
from slackdlm.models.tokenizer import train_tokenizer

TEXTS = ["the old boats sailed 1000 miles", "user assistant system\n\nthe sea"] * 2
BYTES = train_tokenizer(TEXTS, vocab_size=300, kind="byte_bpe")
WORDS = train_tokenizer(TEXTS, vocab_size=40, kind="word")
BOTH = pytest.mark.parametrize("tokenizer", [BYTES, WORDS], ids=["byte_bpe", "word"])

SYSTEM = {"role": "system", "content": "the sea"}
USER = {"role": "user", "content": "the old boats"}
REPLY = {"role": "assistant", "content": "sailed 1000 miles"}
AGAIN = {"role": "user", "content": "the sea"}
SECOND = {"role": "assistant", "content": "old"}


@BOTH
def test_prompts_and_turns_are_what_the_template_renders(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for messages in ([USER], [SYSTEM, USER], [USER, REPLY, AGAIN]):
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        assert encode_prompt(tokenizer, messages) == rendered["input_ids"]
    first, second = encode_dialogue(tokenizer, [USER, REPLY, AGAIN, SECOND])
    assert first.prompt_ids == encode_prompt(tokenizer, [USER])
    assert second.prompt_ids == encode_prompt(tokenizer, [USER, REPLY, AGAIN])
    rendered = tokenizer.apply_chat_template([USER, REPLY])["input_ids"]
    assert first.prompt_ids + first.response_ids == rendered
    assert second.prompt_ids[: len(rendered)] == rendered
    assert encode_dialogue(tokenizer, [USER, REPLY, AGAIN]) == [first]  # no answer to the last


def test_the_published_template_would_end_in_a_spurious_header_and_ours_does_not(
    published: Path,
) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(published)
    shipped = tokenizer.apply_chat_template([USER, REPLY], tokenize=False)
    assert shipped.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
    for trained in (tokenizer, BYTES):
        [turn] = encode_dialogue(trained, [USER, REPLY])
        assert trained.decode(turn.response_ids) == "sailed 1000 miles<|eot_id|>"
    for messages in ([USER], [SYSTEM, USER]):
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        assert encode_prompt(tokenizer, messages) == rendered["input_ids"]


def test_contents_are_stripped_as_the_template_does() -> None:
    padded = {"role": "user", "content": "\n the old boats  \n"}
    assert encode_prompt(BYTES, [padded]) == encode_prompt(BYTES, [USER])


def test_special_tokens_in_an_assistant_message_are_only_text() -> None:
    reply = {"role": "assistant", "content": "<slack><|mdm_mask|><|eot_id|>"}
    [turn] = encode_dialogue(BYTES, [USER, reply])
    specials = {special_id(BYTES, name) for name in SPECIAL_TOKENS}
    assert [i for i in turn.response_ids if i in specials] == [special_id(BYTES, "<|eot_id|>")]


WHALE = {"role": "assistant", "content": "the whale"}


@pytest.mark.parametrize(
    ("encode", "messages", "message"),
    [
        (encode_prompt, [], "expected at least one message"),
        (encode_prompt, [{"role": "owl", "content": "x"}], r"\[0\]: unknown role 'owl'"),
        (encode_prompt, [{"content": "x"}], r"messages\[0\]: unknown role None"),
        (encode_prompt, [USER, {"role": "user", "content": 3}], r"\[1\]: .* to be text, got int"),
        (encode_prompt, [{"role": "user"}], r"\[0\]: expected content to be text, got NoneType"),
        (encode_prompt, [{"role": "user", "content": " \n"}], r"\[0\]: the content is empty"),
        (encode_prompt, [USER, REPLY], "last message to be a user's, got role 'assistant'"),
        (encode_prompt, [SYSTEM], "expected the last message to be a user's, got role 'system'"),
        (encode_dialogue, [], "expected at least one message"),
        (encode_dialogue, [USER], "expected an assistant message to learn from"),
        (encode_dialogue, [REPLY, USER], r"\[0\]: expected a user's or system's message first"),
        (encode_dialogue, [USER, WHALE], r"messages\[1\]: text: \['whale'\] not in the vocabulary"),
    ],
)
def test_what_is_no_conversation_is_an_error(
    encode: Callable[..., object], messages: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        encode(WORDS, messages)


def test_a_model_that_said_nothing_can_be_asked_on() -> None:
    silent = {"role": "assistant", "content": " "}
    said = {"role": "assistant", "content": "x"}
    with_word = encode_prompt(BYTES, [USER, said, USER])
    without = encode_prompt(BYTES, [USER, silent, USER])
    assert len(without) == len(with_word) - 1
    with pytest.raises(DataError, match=r"messages\[1\]: the content is empty"):
        encode_dialogue(BYTES, [USER, silent])


def test_a_tokenizer_without_chat_tokens_is_an_error() -> None:
    backend = train_tokenizer(TEXTS, vocab_size=300, kind="byte_bpe").backend_tokenizer
    bare = Tokenizer(backend.model)
    bare.pre_tokenizer = backend.pre_tokenizer
    with pytest.raises(ConfigError, match=r"expected a chat template, chat tokens \(<\|start_h"):
        encode_prompt(PreTrainedTokenizerFast(tokenizer_object=bare), [USER])
