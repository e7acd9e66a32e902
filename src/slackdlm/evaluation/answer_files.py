"""Answers of any benchmark's file, recognised by what its first entry holds, and their lengths and style."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from slackdlm.errors import DataError
from slackdlm.evaluation import answers as ours
from slackdlm.evaluation.benchmarks import (
    alpaca_eval,
    arena_hard,
    arena_hard_files,
    creative_writing_files,
    mt_bench_files,
    wildbench_files,
)
from slackdlm.evaluation.benchmarks.items import Answer
from slackdlm.evaluation.file_kinds import FileKind, has, is_creative_writing_run, read_kind
from slackdlm.evaluation.jsonl import Row


class Style(NamedTuple):
    """How all answers look, by question id and system."""

    metadata: dict[tuple[str, str], dict[str, Any]]
    """As `arena_hard.style_metadata` gives it."""
    lengths: dict[tuple[str, str], int]
    """In `length_unit`."""
    length_unit: Literal["tokens", "words"]
    """``tokens`` where every file holds Arena-Hard's metadata, else ``words`` for all."""


def read_answer_file(path: Path) -> list[Answer]:
    """Answers of one file: ours, or those of a benchmark.

    Raises:
        DataError: If the file is of no known kind or one of its entries cannot be used.
    """
    return read_kind(path, _KINDS, what="answers")


def style_of(answers: Sequence[Answer]) -> Style:
    """Length and Markdown of every answer, all turns together, in one unit of length for all.

    Raises:
        DataError: If a system answers a question twice.
    """
    held = {(one.question_id, one.system): one.extra.get("metadata") for one in answers}
    if len(held) < len(answers):
        raise DataError("style: a system answers a question twice; give each answer once")
    whole = all(
        isinstance(told, dict) and isinstance(cast("Row", told).get("token_len"), int)
        for told in held.values()
    )
    if whole:
        metadata = {key: dict(cast("Row", told)) for key, told in held.items()}
    else:
        metadata = {
            (one.question_id, one.system): arena_hard.style_metadata(
                "\n".join(one.turns), num_tokens=len(re.findall(r"\S+", "\n".join(one.turns)))
            )
            for one in answers
        }
    lengths = {key: int(told["token_len"]) for key, told in metadata.items()}
    return Style(metadata, lengths, "tokens" if whole else "words")


def _has_object_turns(row: Row) -> bool:
    """Arena-Hard v0.1 wraps each turn's text in an object, MT-Bench does not."""
    choices = row.get("choices")
    first: Any = cast("list[Any]", choices)[0] if isinstance(choices, list) and choices else {}
    turns: Any = cast("Row", first).get("turns") if isinstance(first, dict) else None
    return isinstance(turns, list) and bool(turns) and isinstance(cast("list[Any]", turns)[0], dict)


_KINDS = (
    FileKind(has("id", "turn", "system", "text"), ours.read_answers),
    FileKind(has("uid", "messages"), arena_hard_files.read_answers),
    FileKind(_has_object_turns, arena_hard_files.read_answers),
    FileKind(has("choices"), mt_bench_files.read_answers),
    FileKind(has("session_id", "output"), wildbench_files.read_answers),
    FileKind(has("instruction", "output"), alpaca_eval.read_answers),
    FileKind(is_creative_writing_run, creative_writing_files.read_answers),
)
