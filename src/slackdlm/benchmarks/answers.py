"""Questions in, answers out: our own files, and those of any benchmark by what their first entry holds."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import Field

from slackdlm.benchmarks import alpaca_eval, arena_hard, creative_writing, mt_bench, wildbench
from slackdlm.benchmarks.file_kinds import has, is_creative_writing_run, read_kind
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
from slackdlm.judgments import Game, Grade, Messages, as_messages
from slackdlm.models.messages import is_empty, read_messages
from slackdlm.records import Answer, Question, unique_questions

_LOG = logging.getLogger(__name__)

_MODULES = {
    "arena-hard": arena_hard,
    "mt-bench": mt_bench,
    "wildbench": wildbench,
    "creative-writing": creative_writing,
    "alpaca-eval": alpaca_eval,
}
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
    references: Path | None = None,
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
    if benchmark == "mt-bench":
        return mt_bench.read_questions(path, references=references)[:first]
    return _MODULES[benchmark].read_questions(path)[:first]


def write_benchmark_answers(
    path: Path, answers: Sequence[Answer], questions: Sequence[Question], benchmark: BenchmarkName
) -> None:
    """Answers in the format that the benchmark's own tools read.

    Arena-Hard's version is that of the questions. Its style metadata are left out: they count tokens by GPT-4o's
    tokenizer.
    """
    if benchmark == "arena-hard":
        version = "v0.1" if questions[0].category == arena_hard.V01 else "v2.0"
        arena_hard.write_answers(path, answers, version=version)
    elif benchmark == "creative-writing":
        creative_writing.write_answers(path, answers, questions)
    else:
        _MODULES[benchmark].write_answers(path, answers)


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


def read_answer_file(path: Path) -> list[Answer]:
    """Answers of one file: ours, or those of a benchmark.

    Raises:
        DataError: If the file is of no known kind or one of its entries cannot be used.
    """
    return [replace(answer, source=str(path)) for answer in read_kind(path, _KINDS, what="answers")]


def _has_wrapped_turns(row: Row) -> bool:
    """Arena-Hard v0.1 wraps each turn's text in an object, MT-Bench does not."""
    choices: Any = row.get("choices")
    try:
        return isinstance(choices[0]["turns"][0], dict)
    except (TypeError, LookupError):
        return False


_KINDS = (
    (has("id", "turn", "system", "text"), read_answers),
    (has("uid", "messages"), arena_hard.read_answers),
    (_has_wrapped_turns, arena_hard.read_answers),
    (has("choices"), mt_bench.read_answers),
    (has("session_id", "output"), wildbench.read_answers),
    (has("instruction", "output"), alpaca_eval.read_answers),
    (is_creative_writing_run, creative_writing.read_answers),
)


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
