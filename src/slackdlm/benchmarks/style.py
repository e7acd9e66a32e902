"""How do answers look? Length and Markdown, counted as Arena-Hard's style control counts them."""

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

from slackdlm.errors import DataError
from slackdlm.jsonl import Row
from slackdlm.records import Answer


class Style(NamedTuple):
    """How all answers look, by question id and system."""

    metadata: dict[tuple[str, str], dict[str, Any]]
    """As `style_metadata` gives it."""
    lengths: dict[tuple[str, str], int]
    """In `length_unit`."""
    length_unit: Literal["tokens", "words"]
    """``tokens`` where every file holds Arena-Hard's metadata, else ``words`` for all."""


def style_of(answers: Sequence[Answer]) -> Style:
    """Length and Markdown of every answer, all turns together, in one unit of length for all.

    Raises:
        DataError: If a system answers a question twice.
    """
    held = {(answer.question_id, answer.system): answer for answer in answers}
    if len(held) < len(answers):
        raise DataError("style: a system answers a question twice; give each answer once")
    metadata: dict[tuple[str, str], Row] = {}
    for key, answer in held.items():
        given = answer.extra.get("metadata")
        if not isinstance(given, dict) or not isinstance(given.get("token_len"), int):
            break
        metadata[key] = dict(cast("Row", given))
    is_whole = len(metadata) == len(held)
    if not is_whole:
        texts = {key: "\n".join(answer.turns) for key, answer in held.items()}
        metadata = {
            key: style_metadata(text, num_tokens=len(re.findall(r"\S+", text)))
            for key, text in texts.items()
        }
    lengths = {key: int(style["token_len"]) for key, style in metadata.items()}
    return Style(metadata, lengths, "tokens" if is_whole else "words")


def style_metadata(text: str, *, num_tokens: int) -> dict[str, Any]:
    """Length and Markdown counts of an answer, as Arena-Hard's answer files hold them.

    Counted as its ``add_markdown_info.py`` does, which first removes what stands inside fenced code, wherever the
    same text occurs again too. ``num_tokens`` there is by the GPT-4o tokenizer.
    """
    for block in re.findall(r"```([^`]*)```", text):
        text = text.replace(block, "")
    return {
        "token_len": num_tokens,
        "header_count": {
            f"h{n}": len(re.findall(rf"^#{{{n}}}\s", text, re.M)) for n in range(1, 7)
        },
        "list_count": {
            # Only the line's own blanks: the original's \s* over blank lines counts the same, in quadratic time.
            "ordered": len(re.findall(r"^[^\S\n]*\d+\.\s", text, re.M)),
            "unordered": len(re.findall(r"^[^\S\n]*[-*+]\s", text, re.M)),
        },
        "bold_count": {
            "**": len(re.findall(r"\*\*[^*\n]+\*\*", text)),
            "__": len(re.findall(r"__[^_\n]+__", text)),
        },
    }
