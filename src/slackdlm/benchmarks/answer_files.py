"""Answers of any benchmark's file, recognised by what its first entry holds, and their lengths and style."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from slackdlm.benchmarks import (
    alpaca_eval,
    arena_hard,
    creative_writing,
    mt_bench,
    wildbench,
)
from slackdlm.benchmarks import answers as ours
from slackdlm.benchmarks.file_kinds import FileKind, has, is_creative_writing_run, read_kind
from slackdlm.errors import DataError
from slackdlm.jsonl import Row
from slackdlm.judgments import Game, Grade
from slackdlm.records import Answer


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
    answers = read_kind(path, _KINDS, what="answers")
    return [replace(answer, source=str(path)) for answer in answers]


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


def check_judged(judgments: Sequence[Game | Grade], answers: Sequence[Answer]) -> None:
    """DataError if a judge was shown another answer than the one given here of the same question and system.

    Told by the answer's beginning, which every benchmark's prompt repeats; judgments without a prompt do not say.
    """
    given = {(answer.question_id, answer.system): answer for answer in answers}
    for judgment in judgments:
        shown = "\n".join(turn["content"] for turn in judgment.prompt or ())
        systems = (judgment.a, judgment.b) if isinstance(judgment, Game) else (judgment.system,)
        for system in systems:
            answer = given.get((judgment.question_id, system))
            if not shown or answer is None or judgment.turn > len(answer.turns):
                continue
            beginning = answer.turns[judgment.turn - 1].strip()[:200]
            if beginning not in shown:
                raise DataError(
                    f"{answer.source or 'the answers'}: {system!a} answers question {answer.question_id!a} with "
                    f"{beginning[:60]!a}, which the judge was not shown; give the answers that were judged"
                )


def _has_object_turns(row: Row) -> bool:
    """Arena-Hard v0.1 wraps each turn's text in an object, MT-Bench does not."""
    choices = row.get("choices")
    first: Any = cast("list[Any]", choices)[0] if isinstance(choices, list) and choices else {}
    turns: Any = cast("Row", first).get("turns") if isinstance(first, dict) else None
    return isinstance(turns, list) and bool(turns) and isinstance(cast("list[Any]", turns)[0], dict)


_KINDS = (
    FileKind(has("id", "turn", "system", "text"), ours.read_answers),
    FileKind(has("uid", "messages"), arena_hard.read_answers),
    FileKind(_has_object_turns, arena_hard.read_answers),
    FileKind(has("choices"), mt_bench.read_answers),
    FileKind(has("session_id", "output"), wildbench.read_answers),
    FileKind(has("instruction", "output"), alpaca_eval.read_answers),
    FileKind(is_creative_writing_run, creative_writing.read_answers),
)
