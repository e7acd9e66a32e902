import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from slackdlm.errors import ConfigError, DataError
from slackdlm.models.special_tokens import SPECIAL_TOKENS, special_id
from slackdlm.models.tokenizer import encode_text, train_tokenizer

TEXTS = [
    "In the year 1000 the old boats sailed 200 miles.",
    "the boats the boats the old sea",
    "user assistant system\n\nHello, world! Grüße, 世界",
]
BYTES = train_tokenizer(TEXTS, vocab_size=320, kind="byte_bpe")
WORDS = train_tokenizer(TEXTS, vocab_size=40, kind="word")


@given(st.text())
def test_byte_bpe_gives_any_text_back_exactly(text: str) -> None:
    assert BYTES.decode(encode_text(BYTES, text)) == text


@given(st.lists(st.sampled_from(["the", "boats", "old", "sea", "1000"])))
def test_word_tokenizers_give_single_spaced_text_back(words: list[str]) -> None:
    text = " ".join(words)
    assert WORDS.decode(encode_text(WORDS, text)) == text


@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "<", "|", ">", " ", "slack", "1"]), min_size=1))
def test_text_never_becomes_a_special_token(parts: list[str]) -> None:
    text = "".join(parts)
    ids = encode_text(BYTES, text)
    assert not set(ids) & {special_id(BYTES, token) for token in SPECIAL_TOKENS}
    assert BYTES.decode(ids) == text


@pytest.mark.parametrize("tokenizer", [BYTES, WORDS], ids=["byte_bpe", "word"])
def test_the_special_tokens_are_the_last_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    size = len(tokenizer)
    ids = [special_id(tokenizer, token) for token in SPECIAL_TOKENS]
    assert ids == list(range(size - len(SPECIAL_TOKENS), size))
    assert tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.bos_token == "<|startoftext|>"
    assert tokenizer.mask_token is None


def test_role_names_are_words_even_if_no_text_has_them() -> None:
    tokenizer = train_tokenizer(["the sea"], vocab_size=20, kind="word")
    for role in ("system", "user", "assistant"):
        assert tokenizer.convert_ids_to_tokens(encode_text(tokenizer, role)) == [role]


@pytest.mark.parametrize("text", ["the whale", "<slack>", "the <|mdm_mask|>", "<unk>"])
def test_a_word_outside_the_vocabulary_is_an_error_naming_it(text: str) -> None:
    word = text.split()[-1].replace("|", r"\|")
    with pytest.raises(DataError, match=rf"\['{word}'\] not in the vocabulary"):
        encode_text(WORDS, text)


def test_a_long_text_is_not_shown_whole() -> None:
    near = repr("a" * 20 + "\ud800" + "b" * 20)
    with pytest.raises(DataError, match=re.escape(f"got {near}: surrogates not allowed; repair")):
        encode_text(BYTES, "a" * 300 + "\ud800" + "b" * 300)


def test_a_tokenizer_that_reads_special_tokens_in_text_all_the_same_is_an_error() -> None:
    tokenizer = train_tokenizer(["a b"], vocab_size=300, kind="byte_bpe")
    tokenizer.backend_tokenizer.add_tokens(["<|reserved_token_0|>"])  # not flagged as special
    with pytest.raises(DataError, match=r"reads \['<\|reserved_token_0\|>'\] in it"):
        encode_text(tokenizer, "hi <|reserved_token_0|>")


@pytest.mark.system
@pytest.mark.parametrize(("kind", "vocab_size"), [("byte_bpe", 320), ("word", 40)])
def test_the_same_texts_give_the_same_ids_in_another_process(kind: str, vocab_size: int) -> None:
    code = (
        "from slackdlm.models.tokenizer import train_tokenizer\n"
        f"t = train_tokenizer({TEXTS!r}, vocab_size={vocab_size}, kind={kind!r})\n"
        "import sys; sys.stdout.buffer.write(t.backend_tokenizer.to_str().encode())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    here = train_tokenizer(iter(TEXTS), vocab_size=vocab_size, kind=kind)
    assert other.stdout.decode() == here.backend_tokenizer.to_str()


@pytest.mark.parametrize("tokenizer", [BYTES, WORDS], ids=["byte_bpe", "word"])
def test_a_saved_tokenizer_comes_back_the_same(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.chat_template == tokenizer.chat_template
    assert encode_text(loaded, "the old boats") == encode_text(tokenizer, "the old boats")


def test_the_most_frequent_words_are_kept() -> None:
    tokenizer = train_tokenizer(["a b b c c c"], vocab_size=13, kind="word")
    ids = [special_id(tokenizer, word) for word in "abc"]
    assert [i is None for i in ids] == [True, False, False]
    assert BYTES.convert_ids_to_tokens(encode_text(BYTES, "the boats")) == ["the", "Ġboats"]
    assert BYTES.convert_ids_to_tokens(encode_text(BYTES, "1000")) == ["1", "0", "0", "0"]
    smallest = train_tokenizer([], vocab_size=263, kind="byte_bpe")
    assert len(smallest) == 263
    assert smallest.decode(encode_text(smallest, "Grüße")) == "Grüße"


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("texts", "kind", "vocab_size", "message"),
    [
        (TEXTS, "byte_bpe", 262, "vocab_size must be at least 263 .* got 262"),
        (TEXTS, "word", 11, "vocab_size must be at least 12, got 11"),
        ([" "], "word", 20, "expected texts with words"),
        (TEXTS, "char", 300, "unknown kind 'char'"),
    ],
)
def test_what_no_tokenizer_can_be_learnt_from_is_an_error(
    texts: list[str], kind: str, vocab_size: int, message: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        train_tokenizer(texts, vocab_size=vocab_size, kind=kind)
