"""How does a conversation become ids? In the model's format, safely, one sample per assistant turn.

**Nothing is cut**: contents are written as the chat template writes them, leading indentation and
trailing line breaks included. A template that trims (LLaDA's) trims prompts and the earlier turns
in them, since decoding will see them so; a response to be learnt is whole even then.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerFast

from slackdlm.errors import ConfigError, DataError, one_line
from slackdlm.models.chat_format import Message, Tools, chat_format
from slackdlm.models.special_tokens import ALL_ROLES
from slackdlm.models.tokenizer import encode_text

FIELDS = ("tool_calls", "reasoning_content", "thinking", "name", "tool_call_id", "tools")
"""What a row can say beside roles and contents; ``tools`` belongs to the conversation."""


class Turn(NamedTuple):
    """One assistant turn: what the model sees and what it is to say."""

    prompt_ids: list[int]
    """All earlier turns and what opens the assistant's."""
    response_ids: list[int]
    """The content and the end of the turn: ``<|eot_id|>``, ``<|im_end|>`` or the separator."""


def encode_prompt(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], *, tools: Tools | None = None
) -> list[int]:
    """The ids of a conversation that the assistant is to continue, up to and with its header.

    They are those of ``tokenizer.apply_chat_template(messages, add_generation_prompt=True)``, but
    that what spells a special token in a message is text.

    Args:
        tokenizer: Decides the format, see :class:`slackdlm.models.chat_format.ChatFormat`.
        messages: ``{"role": "system" | "user" | "assistant", "content": text}``, oldest first, the
            last one a user's or a tool's. Other roles (``tool``, ``developer``) and ``FIELDS`` go
            to the template: :func:`written_fields` says which it writes. An assistant's content
            may be empty: a model that said nothing can still be asked on.
        tools: What the assistant may call, as JSON schemas.

    Returns:
        The messages in the model's format, then what opens the assistant's.

    Raises:
        DataError: If a message is not of that form, empty, not in the vocabulary, not written or
            refused by the template, or the last is an assistant's or system's.
        ConfigError: If the tokenizer has neither a usable template nor chat tokens.
    """
    checked = _check(tokenizer, messages, allow_empty_answers=True)
    if checked[-1]["role"] in ("assistant", "system", "developer"):
        raise DataError(
            "messages: expected the last message to be a user's, got role"
            f" {checked[-1]['role']!r}; drop what comes after the last user message"
        )
    return chat_format(tokenizer).prompt(checked, tools)


def encode_dialogue(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], *, tools: Tools | None = None
) -> list[Turn]:
    """The training samples of a conversation: one per assistant turn, earlier turns being prompt.

    A response is what the template's generation marks enclose; without marks, what it writes from
    the content (calls of tools included) to the first special token behind it. Where a turn ends
    in mere text, the tokenizer's separator or end of text follows.

    Args:
        tokenizer: As for :func:`encode_prompt`.
        messages: As for :func:`encode_prompt`, with at least one assistant's. What follows the last
            assistant message is not used.
        tools: As for :func:`encode_prompt`.

    Returns:
        The turns, oldest first. The prompt of a turn is what :func:`encode_prompt` gives for the
        messages before it.

    Raises:
        DataError: As for :func:`encode_prompt`; if there is no assistant message or one opens the
            conversation.
        ConfigError: As for :func:`encode_prompt`.
    """
    checked = _check(tokenizer, messages)
    if checked[0]["role"] == "assistant":
        raise DataError("messages[0]: expected a user's or system's message first, got assistant's")
    while checked and checked[-1]["role"] != "assistant":
        checked.pop()
    if not checked:
        raise DataError("messages: expected an assistant message to learn from, got none")
    return [Turn(*ids) for ids in chat_format(tokenizer).replies(checked, tools)]


def encode_opening(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The ids of an answer's first words behind a prompt: what the assistant is to go on from.

    Raises:
        DataError: As for :func:`slackdlm.models.tokenizer.encode_text`.
        ConfigError: As for :func:`encode_prompt`.
    """
    return encode_text(tokenizer, text.lstrip() if chat_format(tokenizer).trims else text)


def end_of_turn(tokenizer: PreTrainedTokenizerFast) -> tuple[int | None, str]:
    """The special token that ends a response, and text before it that is no part of the answer.

    None and nothing where there is none, or no usable chat template.
    """
    try:
        return chat_format(tokenizer).end_of_turn
    except (ConfigError, DataError):
        return None, ""


def decode_answer(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """The text of a response without its end, where the template ends turns with mere text too."""
    text = str(tokenizer.decode(list(ids), skip_special_tokens=True))
    end = end_of_turn(tokenizer)[1]
    words = end.strip()
    if not words or words not in text:
        return text
    return text.partition(words)[0].removesuffix(end.partition(words)[0])


def written_fields(tokenizer: PreTrainedTokenizerFast) -> frozenset[str]:
    """Which of ``FIELDS`` the tokenizer's chat template writes: found out by trying.

    Raises:
        ConfigError: As for :func:`encode_prompt`.
    """
    style, word, other = chat_format(tokenizer), "Zqw123456", "abcdefghi"  # Mistral's ids have nine
    user, reply = {"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}

    def call(name: str) -> dict[str, object]:
        function = {"name": name, "arguments": {"x": "x"}}
        return {
            "role": "assistant",
            "tool_calls": [{"id": other, "type": "function", "function": function}],
        }

    result = {"role": "tool", "content": "x", "name": "x", "tool_call_id": other}
    schema = {"name": word, "description": "x", "parameters": {"type": "object", "properties": {}}}
    is_written = {
        "tool_calls": style.writes(word, [user, call(word)]),
        "reasoning_content": style.writes(word, [user, reply | {"reasoning_content": word}]),
        "thinking": style.writes(word, [user, reply | {"thinking": word}]),
        "name": style.writes(word, [user | {"name": word}])
        or style.writes(word, [user, call("x"), result | {"name": word}]),
        "tool_call_id": style.writes(word, [user, call("x"), result | {"tool_call_id": word}]),
        "tools": style.writes(word, [user], [{"type": "function", "function": schema}]),
    }
    return frozenset(field for field in FIELDS if is_written[field])


def _check(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[Message],
    *,
    allow_empty_answers: bool = False,
) -> list[dict[str, Any]]:
    """The messages as they go to the template: what is None is not there."""
    if not messages:
        raise DataError("messages: expected at least one message, got none")
    checked: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ALL_ROLES:
            raise DataError(
                f"messages[{index}]: unknown role {role!r}; use 'system', 'user' or 'assistant'"
            )
        is_answer = role == "assistant"
        is_call = is_answer and bool(message.get("tool_calls"))
        if is_call and '"arguments": "' in json.dumps(message["tool_calls"]):
            _ = chat_format(tokenizer).quotes_arguments
        if is_call and not content and "tool_calls" in written_fields(tokenizer):
            content = ""
        elif not isinstance(content, str):
            raise DataError(
                f"messages[{index}]: expected content to be text, got {_parts(content)}"
            )
        elif not content.strip() and not (allow_empty_answers and is_answer):
            raise DataError(f"messages[{index}]: the content is empty; drop the message or fill it")
        checked.append({k: v for k, v in message.items() if v is not None and k != "learn"})
    return checked


def _parts(content: object) -> str:
    """What a content is that is no text: of a list of parts, their types."""
    if not isinstance(content, list):
        return type(content).__name__
    parts = cast("list[Any]", content)
    kinds = {str(part.get("type")) for part in parts if isinstance(part, dict)}
    return f"parts of type {one_line(', '.join(sorted(kinds)), longest=60)}" if kinds else "list"
