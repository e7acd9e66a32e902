"""How does a conversation become ids? In the model's format, safely, one sample per assistant turn.

LLaDA's published template always appends an assistant header, and rendering a message as text lets
its words be read as special tokens. Here the special tokens are ids, contents are encoded as text.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from slackdlm.errors import DataError
from slackdlm.models.chat_format import chat_format
from slackdlm.models.tokenizer import ROLES, encode_text

Message = Mapping[str, object]


class Turn(NamedTuple):
    """One assistant turn: what the model sees and what it is to say."""

    prompt_ids: list[int]
    """All earlier turns and what opens the assistant's."""
    response_ids: list[int]
    """The content and the end of the turn: ``<|eot_id|>``, ``<|im_end|>`` or the separator."""


def written_fields(tokenizer: PreTrainedTokenizerFast) -> frozenset[str]:
    """Fields of a message beside ``role`` and ``content``, and ``tools``, that the format writes: none."""
    return frozenset()


def encode_prompt(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation that the assistant is to continue, up to and with its header.

    Args:
        tokenizer: Decides the format, see :func:`slackdlm.models.chat_format.chat_format`.
        messages: ``{"role": "system" | "user" | "assistant", "content": text}``, oldest first, the
            last one a user's. Contents are stripped; what spells a special token in them is text. An assistant's
            may be empty: a model that said nothing can still be asked on.

    Returns:
        The messages in the model's format, then what opens the assistant's.

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
    style = chat_format(tokenizer)
    reply_opening = style.openings["assistant"] + encode_text(tokenizer, style.joint)
    history = list(style.begin)
    if style.default_system and messages[0][0] != "system":
        body = encode_text(tokenizer, style.joint + style.default_system)
        history += [*style.openings["system"], *body, style.end_id, *style.after]
    turns: list[Turn] = []
    for index, (role, content) in enumerate(messages):
        try:
            if role == "assistant":
                response = [*encode_text(tokenizer, content), style.end_id]
                turns.append(Turn([*history, *reply_opening], response))
                history += [*reply_opening, *response, *style.after]
            else:
                body = encode_text(tokenizer, style.joint + content)
                history += [*style.openings[role], *body, style.end_id, *style.after]
        except DataError as error:
            raise DataError(f"messages[{index}]: {error}") from error
    turns.append(Turn([*history, *reply_opening], []))
    return turns


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
