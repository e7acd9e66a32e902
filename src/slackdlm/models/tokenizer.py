"""How is text cut into ids? As a checkpoint's files say, or by a tokenizer that is trained here."""

import logging
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast, Qwen2Tokenizer

from slackdlm.errors import CheckpointError, ConfigError, DataError, one_line
from slackdlm.models.checkpoint import read_json
from slackdlm.models.special_tokens import (
    BEGIN_OF_TEXT,
    CHAT_TEMPLATE,
    END_OF_TEXT,
    NAMED_TOKENS,
    ROLES,
    SPECIAL_TOKENS,
    UNKNOWN,
    special_id,
)

_LOG = logging.getLogger(__name__)
_TEMPLATE = "chat_template.json"  # of processors, which transformers does not read for tokenizers
TokenizerKind = Literal["byte_bpe", "word"]

# Words, single digits, punctuation, line breaks, spaces: line breaks never join what follows, so a
# turn's content has the same ids whether it is encoded with its header or alone.
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, kind: TokenizerKind
) -> PreTrainedTokenizerFast:
    """A tokenizer learnt from texts; the same texts give the same ids.

    Args:
        texts: Training texts.
        vocab_size: Most ids, special tokens included. There may be fewer: ``len(tokenizer)`` says.
        kind: ``byte_bpe`` cuts any text and gives it back exactly, digits one by one. ``word`` cuts
            at white space and knows the most frequent words (and the role names); any other word
            becomes ``<unk>``, and runs of white space come back as one space.

    Returns:
        A fast tokenizer whose last ids are the special tokens of ``SPECIAL_TOKENS``, with
        ``<|endoftext|>`` for end and padding and a chat template.

    Raises:
        ConfigError: If ``kind`` is unknown or ``vocab_size`` has no room for bytes or words.
        DataError: If there are no texts to learn words from.

    References:
        The special tokens and the chat format are LLaDA's (Nie et al., 2025); ``<slack>`` is from
        arXiv 2601.22947.
    """
    train = {"byte_bpe": _train_byte_bpe, "word": _train_word}.get(kind)
    if train is None:
        raise ConfigError(f"train_tokenizer: unknown kind {kind!r}; use 'byte_bpe' or 'word'")
    # JSON can spell half of a surrogate pair, which nothing can encode.
    encodable = (text for text in texts if text == text.encode(errors="ignore").decode())
    backend = train(encodable, vocab_size=vocab_size - len(SPECIAL_TOKENS))
    # Behind the learnt ids and not part of the learnt model: text can then never spell one of them.
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BEGIN_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        unk_token=UNKNOWN if kind == "word" else None,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )


def _train_byte_bpe(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(alphabet):
        raise ConfigError(
            f"train_tokenizer: vocab_size must be at least {len(alphabet) + len(SPECIAL_TOKENS)} "
            f"(256 bytes and the special tokens), got {vocab_size + len(SPECIAL_TOKENS)}"
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer=trainer)
    return backend


def _train_word(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    required = [UNKNOWN, *ROLES]
    counts = Counter(word for text in texts for word in re.split(r"\s+", text) if word)
    if not counts:
        raise DataError("train_tokenizer: expected texts with words, got none")
    if vocab_size <= len(required):
        raise ConfigError(
            f"train_tokenizer: vocab_size must be at least "
            f"{len(required) + len(SPECIAL_TOKENS) + 1}, got {vocab_size + len(SPECIAL_TOKENS)}"
        )
    reserved = {*required, *SPECIAL_TOKENS}
    words = sorted((word for word in counts if word not in reserved), key=lambda w: (-counts[w], w))
    vocab = {word: i for i, word in enumerate((required + words)[:vocab_size])}
    backend = Tokenizer(models.WordLevel(vocab=vocab, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


def load_tokenizer(folder: Path, config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint, as ``AutoTokenizer`` has it; no remote code is run.

    Dream's own class is remote code, and Qwen2's under another name.

    Raises:
        CheckpointError: If its files are missing or damaged, or are not of the tokenizers library.
    """
    file, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    pieces = [*folder.glob("vocab.json"), *folder.glob("vocab.txt"), *folder.glob("*.model")]
    contents = {path: read_json(path) for path in (settings, file) if path.is_file() or not pieces}
    named = contents.get(settings, {}).get("tokenizer_class")
    is_dream = config.model_type == "Dream" and (named == "DreamTokenizer" or not file.is_file())
    reader: Any = Qwen2Tokenizer if is_dream else AutoTokenizer
    options: dict[str, Any] = {} if is_dream else {"config": config}
    try:
        tokenizer = reader.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
        if isinstance(tokenizer, PreTrainedTokenizerFast):
            # Some wrong settings are noticed only when they are used.
            tokenizer.decode(tokenizer("a b", add_special_tokens=False)["input_ids"])
        if tokenizer.chat_template is None and (folder / _TEMPLATE).is_file():
            tokenizer.chat_template = str(read_json(folder / _TEMPLATE)["chat_template"])
    except Exception as error:  # the tokenizers library raises nothing more specific
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise CheckpointError(
            f"{file}: no tokenizer can be made of it and tokenizer_config.json ({reason}); copy"
            " both files again"
            if file.is_file()
            else _no_tokenizer(file, reason)
        ) from error
    kind = type(tokenizer).__name__
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(
            f"{folder}: its tokenizer, {kind}, is not one of the tokenizers library, and has no"
            " tokenizer.json; use a model that has one"
        )
    # Of files that are not there transformers makes a tokenizer without words, and says nothing.
    parts = {name for key, name in tokenizer.vocab_files_names.items() if key != "tokenizer_file"}
    is_whole = all((folder / name).is_file() for name in parts)
    if file.is_file():
        _warn_of_other_ids(file, tokenizer)
    elif not is_whole or type(tokenizer) is PreTrainedTokenizerFast:
        raise CheckpointError(_no_tokenizer(file, f"{kind} reads {' and '.join(sorted(parts))}"))
    elif not settings.is_file():
        _LOG.warning("%s: missing; text is cut by the defaults of %s", settings, kind)
    return tokenizer


def _no_tokenizer(file: Path, reason: str) -> str:
    return (
        f"{file}: missing, and none can be made of the other files ({reason}); make it where"
        " sentencepiece is installed:"
        f" AutoTokenizer.from_pretrained({str(file.parent)!r}).save_pretrained(...)"
    )


def _warn_of_other_ids(file: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Warn if ``tokenizer_config.json`` has text cut otherwise than ``tokenizer.json`` would."""
    text = "Hello, the W\u00f6rld's  CAF\u00c9 -- 1234\n\n(x_y) it 's"
    written = Tokenizer.from_file(str(file))
    written.no_padding()
    written.no_truncation()
    ids = written.encode(text, add_special_tokens=False).ids
    if tokenizer(text, add_special_tokens=False)["input_ids"] != ids:
        _LOG.warning(
            "%s: not used as it is: text is cut as tokenizer_config.json says, by %s, as"
            " AutoTokenizer does",
            file,
            type(tokenizer).__name__,
        )


def encode_text(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The ids of untrusted text: what spells a special token in it is text and nothing else.

    Args:
        tokenizer: Any fast tokenizer.
        text: Without special tokens of its own; none are added.

    Returns:
        The ids; empty for empty text.

    Raises:
        DataError: If a word is not in the vocabulary, the text is not valid Unicode, or the
            tokenizer makes a special token of it all the same.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = text[max(error.start - 20, 0) : error.end + 20]
        raise DataError(
            f"text: expected valid Unicode, got {near!r}: {error.reason}; repair this text"
        ) from error
    ids = _encode_unchecked(tokenizer, text)
    unknown_id = tokenizer.unk_token_id
    if unknown_id is not None and unknown_id in ids:
        unknown = [w for w in text.split() if unknown_id in _encode_unchecked(tokenizer, w)]
        raise DataError(
            f"text: {unknown[:3]} not in the vocabulary of {len(tokenizer)} tokens; "
            "use words the tokenizer was trained on, or a byte_bpe tokenizer"
        )
    named = (*NAMED_TOKENS, *tokenizer.all_special_tokens)
    names = [t for t in dict.fromkeys(named) if special_id(tokenizer, t) in ids]
    if names:
        raise DataError(f"text: the tokenizer reads {names} in it as special tokens; remove them")
    return ids


def _encode_unchecked(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    encoding = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
    return list(encoding["input_ids"])
