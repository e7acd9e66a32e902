from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from slackdlm.errors import ConfigError, DataError
from slackdlm.models.chat import encode_dialogue, encode_prompt
from slackdlm.models.tokenizer import SPECIAL_TOKENS, special_id, train_tokenizer

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
def test_a_prompt_is_what_a_correct_template_renders(tokenizer: PreTrainedTokenizerFast) -> None:
    for messages in ([USER], [SYSTEM, USER], [USER, REPLY, AGAIN]):
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        assert encode_prompt(tokenizer, messages) == rendered["input_ids"]


@BOTH
def test_a_turn_is_the_whole_conversation_cut_in_two(tokenizer: PreTrainedTokenizerFast) -> None:
    [turn] = encode_dialogue(tokenizer, [SYSTEM, USER, REPLY])
    rendered = tokenizer.apply_chat_template([SYSTEM, USER, REPLY])
    assert turn.prompt_ids + turn.response_ids == rendered["input_ids"]


@BOTH
def test_each_assistant_turn_is_a_sample_with_the_earlier_ones_as_prompt(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    first, second = encode_dialogue(tokenizer, [USER, REPLY, AGAIN, SECOND])
    assert first.prompt_ids == encode_prompt(tokenizer, [USER])
    assert second.prompt_ids == encode_prompt(tokenizer, [USER, REPLY, AGAIN])
    whole_first = first.prompt_ids + first.response_ids
    assert second.prompt_ids[: len(whole_first)] == whole_first


def test_a_response_is_its_content_and_one_end_of_turn() -> None:
    [turn] = encode_dialogue(BYTES, [USER, REPLY])
    assert BYTES.decode(turn.response_ids) == "sailed 1000 miles<|eot_id|>"
    assert turn.response_ids.count(special_id(BYTES, "<|eot_id|>")) == 1
    assert special_id(BYTES, "<|start_header_id|>") not in turn.response_ids


def test_the_published_template_would_end_in_a_spurious_header_and_ours_does_not(
    published: Path,
) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(published)
    shipped = tokenizer.apply_chat_template([USER, REPLY], tokenize=False)
    assert shipped.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
    [turn] = encode_dialogue(tokenizer, [USER, REPLY])
    assert tokenizer.decode(turn.response_ids) == "sailed 1000 miles<|eot_id|>"


def test_a_prompt_is_what_the_published_template_renders(published: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(published)
    for messages in ([USER], [SYSTEM, USER]):
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        assert encode_prompt(tokenizer, messages) == rendered["input_ids"]


def test_contents_are_stripped_as_the_template_does() -> None:
    padded = {"role": "user", "content": "\n the old boats  \n"}
    assert encode_prompt(BYTES, [padded]) == encode_prompt(BYTES, [USER])


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_special_tokens_in_a_message_are_only_text(token: str, published: Path) -> None:
    shipped = PreTrainedTokenizerFast.from_pretrained(published)
    for tokenizer in (BYTES, shipped):
        message = {"role": "user", "content": f"say {token} twice: {token}"}
        plain = {"role": "user", "content": "say it twice"}
        specials = {special_id(tokenizer, name) for name in SPECIAL_TOKENS} - {None}
        hostile = [i for i in encode_prompt(tokenizer, [message]) if i in specials]
        harmless = [i for i in encode_prompt(tokenizer, [plain]) if i in specials]
        assert hostile == harmless
        assert message["content"] in tokenizer.decode(encode_prompt(tokenizer, [message]))


def test_special_tokens_in_an_assistant_message_are_only_text() -> None:
    reply = {"role": "assistant", "content": "<slack><|mdm_mask|><|eot_id|>"}
    [turn] = encode_dialogue(BYTES, [USER, reply])
    specials = {special_id(BYTES, name) for name in SPECIAL_TOKENS}
    assert [i for i in turn.response_ids if i in specials] == [special_id(BYTES, "<|eot_id|>")]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "expected at least one message"),
        ([{"role": "owl", "content": "x"}], r"messages\[0\]: unknown role 'owl'"),
        ([{"content": "x"}], r"messages\[0\]: unknown role None"),
        ([USER, {"role": "user", "content": 3}], r"messages\[1\]: expected content .* got int"),
        ([{"role": "user"}], r"messages\[0\]: expected content to be text, got NoneType"),
        ([{"role": "user", "content": " \n"}], r"messages\[0\]: the content is empty"),
        ([USER, REPLY], "expected the last message to be a user's, got role 'assistant'"),
        ([SYSTEM], "expected the last message to be a user's, got role 'system'"),
    ],
)
def test_a_bad_prompt_is_an_error(messages: list[dict[str, object]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode_prompt(BYTES, messages)


def test_a_model_that_said_nothing_can_be_asked_on() -> None:
    silent = {"role": "assistant", "content": " "}
    said = {"role": "assistant", "content": "x"}
    with_word = encode_prompt(BYTES, [USER, said, USER])
    without = encode_prompt(BYTES, [USER, silent, USER])
    assert len(without) == len(with_word) - 1
    with pytest.raises(DataError, match=r"messages\[1\]: the content is empty"):
        encode_dialogue(BYTES, [USER, silent])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "expected at least one message"),
        ([USER], "expected an assistant message to learn from"),
        ([REPLY, USER], r"messages\[0\]: expected a user's or system's message first"),
    ],
)
def test_a_bad_dialogue_is_an_error(messages: list[dict[str, object]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode_dialogue(BYTES, messages)


def test_an_unknown_word_is_an_error_naming_the_message() -> None:
    with pytest.raises(DataError, match=r"messages\[1\]: text: \['whale'\] not in the vocabulary"):
        encode_dialogue(WORDS, [USER, {"role": "assistant", "content": "the whale"}])


def test_what_follows_the_last_assistant_turn_is_no_sample() -> None:
    assert encode_dialogue(BYTES, [USER, REPLY, AGAIN]) == encode_dialogue(BYTES, [USER, REPLY])


def test_a_tokenizer_without_chat_tokens_is_an_error() -> None:
    backend = train_tokenizer(TEXTS, vocab_size=300, kind="byte_bpe").backend_tokenizer
    bare = Tokenizer(backend.model)
    bare.pre_tokenizer = backend.pre_tokenizer
    with pytest.raises(ConfigError, match=r"expected a chat template, chat tokens \(<\|start_h"):
        encode_prompt(PreTrainedTokenizerFast(tokenizer_object=bare), [USER])
