"""How do other tools write a conversation? Here as turns of ``role``, ``content`` and more."""

import json
from collections.abc import Mapping
from typing import Any, cast

from slackdlm import strict_json
from slackdlm.errors import DataError, one_line

_CALLS = ("function_call", "tool_call")
_TEXTS = ("text", "input_text", "output_text")
"""Types of parts that are text, OpenAI's newer names included."""
_ROLES: dict[object, str] = {
    **dict.fromkeys(("human", "Human", "User"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "Assistant", *_CALLS), "assistant"),
    **dict.fromkeys(("observation", "function", "function_response", "tool_response"), "tool"),
    "System": "system",
}
"""Roles of ShareGPT files and of their readers (FastChat, axolotl, LLaMA-Factory, ms-swift)."""


def read_messages(value: object, *, where: str) -> list[dict[str, object]]:
    """The turns of a conversation, oldest first.

    Args:
        value: A list of ``{"role", "content"}`` or ShareGPT's ``{"from", "value"}``; one dict of
            equally long lists, as Arrow stores these; or two or more texts, the user's and the
            assistant's in turns (UltraChat).
        where: File, line and column, for messages.

    Returns:
        Turns with ``role``, ``content`` and every other field that holds something. A content of
        text parts is their text, and what else a part says is a field such as
        ``content.cache_control``; any other content stays as it is, to be refused where it is
        encoded. A call of a tool in ShareGPT's manner becomes ``tool_calls``.

    Raises:
        DataError: If it has none of these forms.
    """
    if isinstance(value, dict):
        value = _from_lists(cast("dict[str, object]", value))
    if not isinstance(value, list):
        raise DataError(f"{where}: expected a list of turns, got {type(value).__name__}")
    turns = cast("list[object]", value)
    if len(turns) > 1 and all(isinstance(turn, str) for turn in turns):
        roles = ("user", "assistant")
        return [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]
    return [_message(turn, where=f"{where}[{index}]") for index, turn in enumerate(turns)]


def is_empty(value: object) -> bool:
    """Whether a field says nothing, as the missing keys that Arrow fills in do."""
    return value is None or value in ("", [], {})


def _from_lists(lists: Mapping[str, object]) -> object:
    columns = {name: values for name, values in lists.items() if isinstance(values, list)}
    lengths = {len(cast("list[object]", values)) for values in columns.values()}
    if len(columns) < len(lists) or len(lengths) != 1:
        return lists
    return [
        dict(zip(columns, turn, strict=True))
        for turn in zip(*cast("Any", columns.values()), strict=True)
    ]


def _message(turn: object, *, where: str) -> dict[str, object]:
    fields = cast("dict[str, object]", turn) if isinstance(turn, dict) else {}
    pairs = [
        (role, content)
        for role, content in (("role", "content"), ("from", "value"))
        if fields.get(role) is not None and (content in fields or "tool_calls" in fields)
    ]
    if not pairs:
        raise DataError(
            f'{where}: expected {{"role": text, "content": text}} or {{"from": text, "value":'
            f" text}}, got {one_line(str(turn), longest=60)!r}"
        )
    names = pairs[0]
    role, content = fields[names[0]], fields.get(names[1])
    extra = {
        f"{name} beside {names[1]}" if name in ("role", "content") else str(name): value
        for name, value in fields.items()
        if name not in names and not is_empty(value)
    }
    calls = _calls(content) if role in _CALLS else None
    if calls is not None:
        content, extra = "", extra | {"tool_calls": calls}
    elif content is None and "tool_calls" in extra:
        content = ""
    elif isinstance(content, list):
        content, rest = _text_of(cast("list[object]", content))
        extra |= rest
    role = _ROLES.get(role, role) if isinstance(role, str) else role
    return {"role": role, "content": content, **extra}


def _text_of(parts: list[object]) -> tuple[object, dict[str, object]]:
    """Text parts joined, and what else they say; parts of other kinds as they are."""
    texts: list[str] = []
    rest: dict[str, object] = {}
    for part in parts:
        fields = cast("dict[str, object]", part) if isinstance(part, dict) else {"text": part}
        text = fields.get("text")
        if fields.get("type", "text") not in _TEXTS or not isinstance(text, str):
            return parts, {}
        texts.append(text)
        rest |= {
            f"content.{name}": value
            for name, value in fields.items()
            if name not in ("type", "text") and not is_empty(value)
        }
    return ("".join(texts) if texts else parts), rest


def _calls(content: object) -> list[dict[str, object]] | None:
    """``{"name", "arguments"}``, or a list of them, as OpenAI's calls; None if it is not that."""
    try:
        value: Any = strict_json.parse(content) if isinstance(content, str) else content
    except ValueError:
        return None
    calls: list[Any] = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) and "name" in call for call in calls):
        return None
    return [{"type": "function", "function": call} for call in calls]


def parsed(value: object) -> object:
    """The value of a text of JSON, as tools are often stored; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
