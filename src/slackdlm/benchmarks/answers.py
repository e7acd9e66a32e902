"""Questions in, answers out: the files of our own format, one JSON object a line."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from slackdlm.benchmarks import (
    alpaca_eval,
    arena_hard_files,
    creative_writing_files,
    mt_bench_files,
    wildbench_files,
)
from slackdlm.errors import ConfigError, DataError, one_line
from slackdlm.jsonl import (
    Row,
    get_id,
    get_optional_text,
    get_text,
    read_items,
    read_rows,
    show,
)
from slackdlm.judgments import Messages, as_messages
from slackdlm.models.messages import is_empty, read_messages
from slackdlm.records import Answer, Question, add_once, unique_questions

_LOG = logging.getLogger(__name__)

BenchmarkName = Literal["arena-hard", "mt-bench", "wildbench", "creative-writing", "alpaca-eval"]


class Turn(NamedTuple):
    """One answered turn: a line of ``answers.jsonl``."""

    question_id: str
    turn: int
    """From 1."""
    system: str
    text: str
    row: Row
    """The whole line."""


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


def _question(row: Row, column: str | None, *, where: str) -> tuple[Question, list[str]]:
    """The question of a row, and what the row says beside it."""
    unused: list[str] = []
    asked = column or ("prompt" if row.get("messages") is None else "messages")
    if asked == "messages":
        turns = read_messages(row["messages"], where=f"{where}: 'messages'")
        last = max((n for n, turn in enumerate(turns) if turn["role"] == "user"), default=None)
        end = len(turns) if last is None else last + 1
        unused += ["turns behind the last user's"] if end < len(turns) else []
        turns = turns[:end]
        names = {name for turn in turns for name in turn if name not in ("role", "content")}
        unused += [f"{name} (of turns)" for name in sorted(names)]
        plain = [{name: turn[name] for name in ("role", "content")} for turn in turns]
        messages = as_messages(plain, where=f"{where}: 'messages'")
    else:
        messages = ({"role": "user", "content": get_text(row, asked, where=where)},)
    if not messages or not all(message["content"].strip() for message in messages):
        raise DataError(f"{where}: expected a question with words in every turn, got none")
    name = next((name for name in ("id", "question_id", "uid") if row.get(name) is not None), None)
    place = where.rpartition(":")[2]
    number = int(place) - 1 if place.isdecimal() else int(place.split()[-1])
    used = (asked, "category", name)
    unused += [key for key, held in row.items() if key not in used and not is_empty(held)]
    question = Question(
        id=str(number) if name is None else get_id(row, name, where=where),
        category=get_optional_text(row, "category", where=where),
        messages=messages,
    )
    return question, unused


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
        "arena-hard": arena_hard_files.read_questions,
        "mt-bench": mt_bench_files.read_questions,
        "wildbench": wildbench_files.read_questions,
        "creative-writing": creative_writing_files.read_questions,
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
        arena_hard_files.write_answers(path, answers, version="v0.1" if old else "v2.0")
    elif benchmark == "creative-writing":
        creative_writing_files.write_answers(path, answers, questions)
    else:
        write = {
            "mt-bench": mt_bench_files.write_answers,
            "wildbench": wildbench_files.write_answers,
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
        question_id, text = get_id(row, "id", where=where), get_text(row, "text", where=where)
        system, turn = get_text(row, "system", where=where), row.get("turn")
        if type(turn) is not int or turn < 1:
            raise DataError(f"{where}: expected a number from 1 in 'turn', got {show(turn)}")
        problem = (
            f"{where}: {system!a} answers turn {turn} of question {question_id!a} twice; keep one"
        )
        add_once(seen, (question_id, system, turn), problem)
        turns.append(Turn(question_id, turn, system, text, row))
    return turns


def read_answers(path: Path) -> list[Answer]:
    """The answers of our own ``answers.jsonl``, a question's turns together, in the order of the file.

    Raises:
        DataError: If the file or a line cannot be used, an answer is there twice, or a turn is missing before a later
            one; names file and line.
    """
    found: dict[tuple[str, str], list[Turn]] = {}
    for turn in read_turns(path):
        found.setdefault((turn.question_id, turn.system), []).append(turn)
    answers: list[Answer] = []
    for (question_id, system), turns in found.items():
        turns = sorted(turns, key=lambda turn: turn.turn)
        if [turn.turn for turn in turns] != list(range(1, len(turns) + 1)):
            raise DataError(
                f"{path}: {system!a} answers turn {turns[-1].turn} of question {question_id!a}, "
                "but not every turn before it"
            )
        prompts = [_prompt(turn, path=path) for turn in turns]
        answers.append(
            Answer(
                question_id=question_id,
                system=system,
                turns=tuple(turn.text for turn in turns),
                messages=prompts[0],
                later_turns=tuple(prompt[-1]["content"] for prompt in prompts[1:] if prompt),
                source=str(path),
            )
        )
    return answers


def _prompt(turn: Turn, *, path: Path) -> Messages:
    """What was put to the model in that turn, all before it included; empty where the file does not say."""
    prompt: Any = turn.row.get("prompt")
    if prompt is None:
        return ()
    return as_messages(prompt, where=f"{path}: 'prompt' of question {turn.question_id!a}")
