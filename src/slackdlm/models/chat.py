"""How does a conversation become ids? LLaDA's chat format, safely, one sample per assistant turn.

The published template always appends an assistant header, and rendering a message as text lets its
words be read as special tokens. Here the special tokens are ids, and contents are encoded as text.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from slackdlm.errors import ConfigError, DataError
from slackdlm.models.tokenizer import (
    BEGIN_OF_TEXT,
    END_HEADER,
    END_OF_TURN,
    ROLES,
    START_HEADER,
    encode_text,
    special_id,
)

Message = Mapping[str, object]


class Turn(NamedTuple):
    """One assistant turn: what the model sees and what it is to say."""

    prompt_ids: list[int]
    """All earlier turns and the assistant's header."""
    response_ids: list[int]
    """The content and ``<|eot_id|>``."""


def encode_prompt(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation that the assistant is to continue, up to and with its header.

    Args:
        tokenizer: Any tokenizer with LLaDA's chat tokens; its own chat template is not used.
        messages: ``{"role": "system" | "user" | "assistant", "content": text}``, oldest first, the
            last one a user's. Contents are stripped; what spells a special token in them is text. An assistant's
            may be empty: a model that said nothing can still be asked on.

    Returns:
        ``<|startoftext|>``, per message header, content and ``<|eot_id|>``, then the header.

    Raises:
        DataError: If a message is not of that form, empty, or not in the tokenizer's vocabulary, or
            the last is not a user's.
        ConfigError: If the tokenizer has no chat tokens.
    """
    checked = _check(messages, allow_empty_answers=True)
    if checked[-1][0] != "user":
        raise DataError(
            f"messages: expected the last message to be a user's, got role {checked[-1][0]!r}; "
            "drop what comes after the last user message"
        )
    return _encode(tokenizer, checked)[-1].prompt_ids


def encode_dialogue(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message]) -> list[Turn]:
    """The training samples of a conversation: one per assistant turn, earlier turns being prompt.

    Args:
        tokenizer: As for :func:`encode_prompt`.
        messages: As for :func:`encode_prompt`, with at least one assistant's. What follows the last
            assistant message is not used.

    Returns:
        The turns, oldest first. The prompt of a turn is what :func:`encode_prompt` gives for the
        messages before it.

    Raises:
        DataError: As for :func:`encode_prompt`; if there is no assistant message or one opens the
            conversation.
        ConfigError: If the tokenizer has no chat tokens.
    """
    checked = _check(messages)
    if checked[0][0] == "assistant":
        raise DataError("messages[0]: expected a user's or system's message first, got assistant's")
    turns = _encode(tokenizer, checked)[:-1]
    if not turns:
        raise DataError("messages: expected an assistant message to learn from, got none")
    return turns


def _encode(tokenizer: PreTrainedTokenizerFast, messages: list[tuple[str, str]]) -> list[Turn]:
    """One turn per assistant message, then one with no response for what would come next."""
    begin, end = _require(tokenizer, BEGIN_OF_TEXT), _require(tokenizer, END_OF_TURN)
    assistant_header = _header(tokenizer, "assistant") + encode_text(tokenizer, "\n\n")
    turns: list[Turn] = []
    history = [begin]
    for index, (role, content) in enumerate(messages):
        try:
            if role == "assistant":
                response = [*encode_text(tokenizer, content), end]
                turns.append(Turn([*history, *assistant_header], response))
                history += [*assistant_header, *response]
            else:
                body = encode_text(tokenizer, "\n\n" + content)
                history += [*_header(tokenizer, role), *body, end]
        except DataError as error:
            raise DataError(f"messages[{index}]: {error}") from error
    turns.append(Turn([*history, *assistant_header], []))
    return turns


def _header(tokenizer: PreTrainedTokenizerFast, role: str) -> list[int]:
    start, end = _require(tokenizer, START_HEADER), _require(tokenizer, END_HEADER)
    return [start, *encode_text(tokenizer, role), end]


def _require(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    token_id = special_id(tokenizer, token)
    if token_id is None:
        raise ConfigError(
            f"tokenizer: expected LLaDA's chat token {token}, found none in its {len(tokenizer)} "
            "tokens; use a LLaDA tokenizer or one from train_tokenizer"
        )
    return token_id


def _check(
    messages: Sequence[Message], *, allow_empty_answers: bool = False
) -> list[tuple[str, str]]:
    """Role and stripped content of each message."""
    if not messages:
        raise DataError("messages: expected at least one message, got none")
    checked: list[tuple[str, str]] = []
    for index, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise DataError(
                f"messages[{index}]: unknown role {role!r}; use 'system', 'user' or 'assistant'"
            )
        if not isinstance(content, str):
            raise DataError(
                f"messages[{index}]: expected content to be text, got {type(content).__name__}"
            )
        if not content.strip() and not (allow_empty_answers and role == "assistant"):
            raise DataError(f"messages[{index}]: the content is empty; drop the message or fill it")
        checked.append((str(role), content.strip()))
    return checked
