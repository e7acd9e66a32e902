"""Questions in, answers out: the files of our own format, one JSON object a line."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import Field

from slackdlm.benchmarks import (
    alpaca_eval,
    arena_hard,
    creative_writing,
    mt_bench,
    wildbench,
)
from slackdlm.errors import ConfigError, DataError, one_line
from slackdlm.jsonl import (
    FileRow,
    Id,
    Row,
    Text,
    Whole,
    add_once,
    check,
    check_field,
    read_items,
    read_rows,
)
from slackdlm.judgments import Messages, as_messages
from slackdlm.models.messages import is_empty, read_messages
from slackdlm.records import Answer, Question, unique_questions

_LOG = logging.getLogger(__name__)

BenchmarkName = Literal["arena-hard", "mt-bench", "wildbench", "creative-writing", "alpaca-eval"]


class Turn(FileRow):
    """One answered turn: a line of ``answers.jsonl``, what else it holds in ``rest``."""

    question_id: Id = Field(alias="id")
    turn: Annotated[Whole, Ge(1)]
    """From 1."""
    system: Text
    text: Text
    prompt: Messages | None = None
    """What was put to the model in that turn, all before it included; None where the file does not say."""


def read_questions(
    path: Path, *, column: str | None = None, first: int | None = None
) -> list[Question]:
    """Questions of any JSONL, JSON or Parquet file.

    Args:
        path: Objects with ``messages`` or the named column, and optionally ``category`` and ``id``, ``question_id`` or
            ``uid``. Without one of them the id is the line's number, counted from 0. Messages that end with the
            assistant's, as data sets with reference answers do, are asked up to the last user turn. What is not used
            is named in one warning.
        column: Column of the question's text; None: ``messages``, or ``prompt`` where there are none.
        first: How many to read; all if not given.

    Raises:
        DataError: If the file is missing, empty or not UTF-8, two questions have one id, or a line cannot be used;
            names file and line.
        ConfigError: If ``first`` is below 1.
    """
    check_first(first)
    questions: list[Question] = []
    unused = Counter[str]()
    for where, row in read_items(path, what="questions"):
        if first is not None and len(questions) == first:
            break
        question, names = _question(row, column, where=where)
        questions.append(question)
        unused.update(names)
    if unused:
        _warn_of_unused(path, unused, len(questions))
    return unique_questions(questions, path=path)


class _Row(FileRow):
    category: Text | None = None


def _question(row: Row, column: str | None, *, where: str) -> tuple[Question, list[str]]:
    """The question of a row, and what the row says beside it."""
    column = column or ("prompt" if row.get("messages") is None else "messages")
    if column == "messages":
        messages, unused = _chat(row["messages"], where=f"{where}: 'messages'")
    else:
        text = check_field(Text, row, column, where=where)
        messages, unused = ({"role": "user", "content": text},), []
    if not messages or not all(message["content"].strip() for message in messages):
        raise DataError(f"{where}: expected a question with words in every turn, got none")
    name = next((name for name in ("id", "question_id", "uid") if row.get(name) is not None), None)
    # Without an id it is the line's number, counted from 0; lists and tables are counted so already.
    line = where.rpartition(":")[2]
    number = int(line) - 1 if line.isdecimal() else int(line.split()[-1])
    used = (column, "category", name)
    unused += [key for key, value in row.items() if key not in used and not is_empty(value)]
    question = Question(
        id=str(number) if name is None else check_field(Id, row, name, where=where),
        category=check(_Row, row, where=where).category,
        messages=messages,
    )
    return question, unused


def _chat(value: object, *, where: str) -> tuple[Messages, list[str]]:
    """A conversation up to its last user's turn, and what is left out of it."""
    turns = read_messages(value, where=where)
    last = max((n for n, turn in enumerate(turns) if turn["role"] == "user"), default=None)
    end = len(turns) if last is None else last + 1
    unused = ["turns behind the last user's"] if end < len(turns) else []
    names = {name for turn in turns[:end] for name in turn if name not in ("role", "content")}
    unused += [f"{name} (of turns)" for name in sorted(names)]
    plain = [{name: turn[name] for name in ("role", "content")} for turn in turns[:end]]
    return as_messages(plain, where=where), unused


def _warn_of_unused(path: Path, unused: Mapping[str, int], total: int) -> None:
    named = ", ".join(
        one_line(name, longest=60) + ("" if number == total else f" ({number:,} of {total:,} rows)")
        for name, number in unused.items()
    )
    if os.environ.get("RANK", "0") == "0":
        _LOG.warning("%s: not used of its questions: %s", path, named)


def read_benchmark_questions(
    path: Path,
    benchmark: BenchmarkName | None,
    *,
    column: str | None = None,
    first: int | None = None,
) -> list[Question]:
    """Questions of a benchmark's own file, or of any file where there is no benchmark; as :func:`read_questions`.

    Raises:
        ConfigError: If a column is named beside a benchmark.
    """
    check_first(first)
    if benchmark is None:
        return read_questions(path, column=column, first=first)
    if column is not None:
        raise ConfigError(f"--column: has no effect beside --benchmark {benchmark}; leave it out")
    read = {
        "arena-hard": arena_hard.read_questions,
        "mt-bench": mt_bench.read_questions,
        "wildbench": wildbench.read_questions,
        "creative-writing": creative_writing.read_questions,
        "alpaca-eval": alpaca_eval.read_questions,
    }[benchmark]
    return read(path)[:first]


def write_benchmark_answers(
    path: Path, answers: Sequence[Answer], questions: Sequence[Question], benchmark: BenchmarkName
) -> None:
    """Answers in the format that the benchmark's own tools read.

    Arena-Hard's version is that of the questions. Its style metadata are left out: they count tokens by GPT-4o's
    tokenizer.
    """
    if benchmark == "arena-hard":
        old = questions[0].category == "arena-hard-v0.1"
        arena_hard.write_answers(path, answers, version="v0.1" if old else "v2.0")
    elif benchmark == "creative-writing":
        creative_writing.write_answers(path, answers, questions)
    else:
        write = {
            "mt-bench": mt_bench.write_answers,
            "wildbench": wildbench.write_answers,
            "alpaca-eval": alpaca_eval.write_answers,
        }[benchmark]
        write(path, answers)


def check_first(first: int | None) -> None:
    """Raise ConfigError unless ``first`` questions can be taken."""
    if first is not None and first < 1:
        raise ConfigError(f"--first: expected at least 1, got {first}")


def read_turns(path: Path) -> list[Turn]:
    """Every line of our own ``answers.jsonl``; errors as in :func:`read_answers`."""
    turns: list[Turn] = []
    seen: set[tuple[str, str, int]] = set()
    for where, row in read_rows(path, what="answers"):
        turn = check(Turn, row, where=where)
        label = f"{turn.system!a} answers turn {turn.turn} of question {turn.question_id!a}"
        add_once(
            seen, (turn.question_id, turn.system, turn.turn), f"{where}: {label} twice; keep one"
        )
        turns.append(turn)
    return turns


def read_answers(path: Path) -> list[Answer]:
    """The answers of our own ``answers.jsonl``, a question's turns together, in the order of the file.

    Raises:
        DataError: If the file or a line cannot be used, an answer is there twice, or a turn is missing before a later
            one; names file and line.
    """
    by_answer: dict[tuple[str, str], list[Turn]] = {}
    for turn in read_turns(path):
        by_answer.setdefault((turn.question_id, turn.system), []).append(turn)
    answers: list[Answer] = []
    for (question_id, system), turns in by_answer.items():
        turns = sorted(turns, key=lambda turn: turn.turn)
        if [turn.turn for turn in turns] != list(range(1, len(turns) + 1)):
            raise DataError(
                f"{path}: {system!a} answers turn {turns[-1].turn} of question {question_id!a}, "
                "but not every turn before it"
            )
        answers.append(
            Answer(
                question_id=question_id,
                system=system,
                turns=tuple(turn.text for turn in turns),
                messages=turns[0].prompt or (),
                later_turns=tuple(turn.prompt[-1]["content"] for turn in turns[1:] if turn.prompt),
                source=str(path),
            )
        )
    return answers
