"""MT-Bench: 80 two-turn questions, graded 1 to 10 per turn or compared in both orders.

Mathematics, reasoning and coding are judged beside a reference answer. A grade FastChat could not parse is -1 in its
files and silently left out of its mean; here it is ``unparsable`` and counted.

References:
    Zheng et al., 2023 (arXiv 2306.05685); lm-sys/FastChat at 0e6d3e4b, ``llm_judge``.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field

from slackdlm.benchmarks.templates import only, template
from slackdlm.errors import DataError, show
from slackdlm.jsonl import (
    FileRow,
    Id,
    Number,
    Row,
    Text,
    Texts,
    add_once,
    one_of,
    read_as,
    write_rows,
)
from slackdlm.judgments import Game, Grade, GradeStatus, Messages, Order, refuse_self_play
from slackdlm.records import Answer, Question, unique, unique_questions

_LOG = logging.getLogger(__name__)
LOWEST, HIGHEST = 1, 10
ERROR_REPLY: Final = "$ERROR$"
"""What FastChat writes as the judgment when every call failed."""
REFERENCE_CATEGORIES: Final = ("math", "reasoning", "coding")
"""Categories judged beside a reference answer."""

# Questions and answers


class _Question(FileRow):
    question_id: Id
    category: Text
    turns: Texts


def read_questions(path: Path, *, references: Path | None = None) -> list[Question]:
    """Questions, with the answers of a reference model's file in the categories that are judged beside one."""
    known = {} if references is None else _references(references)
    questions = [
        Question(
            id=row.question_id,
            category=row.category,
            messages=({"role": "user", "content": row.turns[0]},),
            later_turns=row.turns[1:],
            reference=known.get(row.question_id, ())
            if row.category in REFERENCE_CATEGORIES
            else (),
            extra=row.rest,
        )
        for _, row in read_as(_Question, path, what="MT-Bench questions")
    ]
    used = {question.id for question in questions if question.reference}
    if unused := [question_id for question_id in known if question_id not in used]:
        count = f"{len(unused)} of {len(known)}, the first to question {unused[0]!a}"
        kinds = f"only those of {', '.join(REFERENCE_CATEGORIES)} are, to questions of {path}"
        _LOG.warning("%s: references not used: %s; %s", references, count, kinds)
    return unique_questions(questions, path=path)


def _references(path: Path) -> dict[str, tuple[str, ...]]:
    """The reference answers to each question; DataError unless they are of one model."""
    answers = read_answers(path)
    systems = sorted({answer.system for answer in answers})
    if len(systems) > 1:
        raise DataError(
            f"{path}: expected the reference answers of one model, got {', '.join(map(ascii, systems))}"
        )
    return {answer.question_id: answer.turns for answer in answers}


class _Choice(FileRow):
    turns: Texts


class _Answer(FileRow):
    question_id: Id
    model_id: Text
    choices: Annotated[tuple[_Choice, ...], Field(min_length=1)]


def read_answers(path: Path) -> list[Answer]:
    """Answers of one or more systems; of several choices the first, as FastChat's judge does."""
    answers = [
        Answer(row.question_id, row.model_id, row.choices[0].turns, extra=row.rest)
        for _, row in read_as(_Answer, path, what="MT-Bench answers")
    ]
    return unique(answers, path=path)


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Answers as FastChat reads them."""
    rows: list[Row] = []
    for answer in answers:
        # FastChat's ids are numbers.
        is_number = re.fullmatch("0|[1-9][0-9]{0,16}", answer.question_id)
        number = int(answer.question_id) if is_number else answer.question_id
        choices = [{"index": 0, "turns": list(answer.turns)}]
        rows.append({"question_id": number, "model_id": answer.system, "choices": choices})
    write_rows(path, rows, ascii_only=True)


# The judge


def judge_messages(question: Question, answer: Sequence[str], *, turn: int) -> Messages:
    """What the judge is sent to grade one turn of an answer; turn 2 shows both turns."""
    fields = _reference_fields(question, turn)
    if turn == 1:
        fields |= {"question": question.prompt, "answer": answer[0]}
    else:
        fields |= {"question_1": question.prompt, "question_2": question.later_turns[0]}
        fields |= {"answer_1": answer[0], "answer_2": answer[1]}
    return _filled(prompt_name(question, turn=turn, mode="single"), fields)


def pair_messages(
    question: Question, first: Sequence[str], second: Sequence[str], *, turn: int
) -> Messages:
    """What the judge is sent to compare two answers, ``first`` shown as assistant A."""
    fields = _reference_fields(question, turn)
    if turn == 1:
        fields |= {"question": question.prompt, "answer_a": first[0], "answer_b": second[0]}
    else:
        fields |= {"question_1": question.prompt, "question_2": question.later_turns[0]}
        fields |= {"answer_a_1": first[0], "answer_a_2": first[1]}
        fields |= {"answer_b_1": second[0], "answer_b_2": second[1]}
    return _filled(prompt_name(question, turn=turn, mode="pair"), fields)


def prompt_name(question: Question, *, turn: int, mode: Literal["single", "pair"]) -> str:
    """Which of the eight judge prompts a question's turn gets."""
    subject = "math-v1" if question.category in REFERENCE_CATEGORIES else _GENERAL[mode]
    return f"{mode}-{subject}" + ("-multi-turn" if turn == 2 else "")


_GENERAL: Final = {"single": "v1", "pair": "v2"}


def _prompts() -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in template("mt_bench.jsonl").splitlines()]
    return {row["name"]: row for row in rows}


def _filled(name: str, values: Mapping[str, str]) -> Messages:
    prompt = _prompts()[name]
    return (
        {"role": "system", "content": prompt["system_prompt"]},
        {"role": "user", "content": prompt["prompt_template"].format(**values)},
    )


def _reference_fields(question: Question, turn: int) -> dict[str, str]:
    if turn not in (1, 2) or (turn == 2 and not question.later_turns):
        raise DataError(f"question {show(question.id)}: it has no turn {turn}")
    if question.category not in REFERENCE_CATEGORIES:
        return {}
    if len(question.reference) < turn:
        raise DataError(
            f"question {show(question.id)}: category {question.category} is judged beside a reference answer, "
            "and there is none; give FastChat's reference_answer/gpt-4.jsonl with --references"
        )
    return {f"ref_answer_{n}": text for n, text in enumerate(question.reference[:turn], start=1)}


def prompts_sha256() -> str:
    """Hash of every judge prompt of this file: part of a judgment's identity."""
    return hashlib.sha256(json.dumps(_prompts(), sort_keys=True).encode()).hexdigest()


_NUMBER: Final = r"([0-9]{1,9}(?:\.[0-9]{0,9})?)"
_RATING: Final = r"(?<![\"'“‘`\w])rating[*_]{0,2}:[\s*_$]{0,8}"
_OUT_OF_TEN: Final = re.compile(r"(?<=\]\])\s*(?:out of|/)\s*\[\[10\]\]")
"""Rating and scale: ``[[8]] out of [[10]]``."""


def parse_verdict(text: str) -> float | None:
    """The ``[[rating]]`` of a reply, single brackets where there are none; None without one.

    The number is returned as said, also outside 1 to 10. FastChat takes the first match. So does this where all say the
    same; else the one that follows ``Rating:`` outside quotes counts, and if that is none or several, the reply
    contradicts itself and has no verdict. Of 160 published judgments two do, which also grade an improved answer.
    """
    text = _OUT_OF_TEN.sub("", text)
    double = [float(number) for number in re.findall(rf"\[\[{_NUMBER}\]\]", text)]
    if double:
        announced = re.findall(rf"{_RATING}\[\[{_NUMBER}\]\]", text, re.I)
        return only(double, [float(number) for number in announced])
    single = [float(number) for number in re.findall(rf"\[{_NUMBER}\]", text)]
    if not single:
        return None
    # [1] may be a citation: a rating that the words name counts against it.
    announced = [float(number) for number in re.findall(rf"{_RATING}\[?{_NUMBER}", text, re.I)]
    return only(announced if set(announced) & set(single) else single + announced)


def parse_winner(text: str) -> str | None:
    """The one of ``[[A]]``, ``[[B]]`` and ``[[C]]`` (a tie) in a reply; None without one.

    FastChat looks for A anywhere, then B, then C. Where a reply holds several, the one behind the word verdict or alone
    on its line counts; if those differ too, the reply contradicts itself and has no verdict.
    """
    announced = re.findall(
        r"^(?:[^\[\]\n\"“]*\bverdict\b[^\[\]\n\"“]*|\W*)\[\[([ABC])\]\]", text, re.I | re.M
    )
    return only(re.findall(r"\[\[([ABC])\]\]", text), announced)


# Judgments of others


class _Judged(FileRow):
    question_id: Id
    judge: tuple[Text, Text]
    """The judge's name and the prompt's."""
    turn: Annotated[Literal[1, 2], one_of(1, 2)] = 1


class _Grade(_Judged):
    model: Text
    score: Number
    judgment: Text
    user_prompt: Text | None = None


def read_judgments(path: Path) -> list[Grade]:
    """Single-answer grades; -1 is ``unparsable``, a failed call ``failed``, 0 or 11 ``out_of_range``."""
    grades: list[Grade] = []
    seen: set[tuple[object, ...]] = set()
    for where, row in read_as(_Grade, path, what="MT-Bench judgments"):
        judge, prompt_name = row.judge
        status: GradeStatus = "ok" if LOWEST <= row.score <= HIGHEST else "out_of_range"
        if row.score == -1:
            status = "failed" if row.judgment == ERROR_REPLY else "unparsable"
        label = f"turn {row.turn} of {row.model!a} on question {row.question_id!a}"
        key = (row.question_id, row.model, row.turn, judge)
        add_once(seen, key, f"{where}: {label} is graded twice by {judge!a}")
        grades.append(
            Grade(
                question_id=row.question_id,
                system=row.model,
                turn=row.turn,
                score=None if row.score == -1 else row.score,
                status=status,
                category=None,
                judge_identity={"benchmark": "mt-bench", "judge": judge},
                reply=row.judgment,
                prompt=_user(row.user_prompt),
                extra={"prompt_name": prompt_name, **row.rest},
            )
        )
    return grades


_Winner = Literal["model_1", "model_2", "tie", "error"]


class _Pair(_Judged):
    model_1: Text
    model_2: Text
    g1_winner: _Winner
    g2_winner: _Winner
    g1_judgment: Text
    g2_judgment: Text
    g1_user_prompt: Text | None = None
    g2_user_prompt: Text | None = None


def read_pairs(path: Path) -> list[Game]:
    """Pairwise judgments: two games a line, ``a`` being ``model_1``; ``error`` is ``unparsable``."""
    games: list[Game] = []
    seen: set[tuple[object, ...]] = set()
    for where, row in read_as(_Pair, path, what="MT-Bench pairwise judgments"):
        refuse_self_play(row.model_1, row.model_2, where=where, is_first=not games)
        label = f"turn {row.turn} of {row.model_1!a} and {row.model_2!a} on question {row.question_id!a}"
        key = (row.question_id, row.model_1, row.model_2, row.turn, row.judge[0])
        add_once(seen, key, f"{where}: {label} is judged twice by {row.judge[0]!a}")
        games += [
            _game(row, 0, row.g1_winner, row.g1_judgment, row.g1_user_prompt),
            _game(row, 1, row.g2_winner, row.g2_judgment, row.g2_user_prompt),
        ]
    return games


def _game(row: _Pair, order: Order, winner: _Winner, reply: str, prompt: str | None) -> Game:
    # The file names the winner; the judge said A, B or C of the answers as shown.
    letters = {"model_1": "AB"[order], "model_2": "BA"[order], "tie": "C"}
    verdict = letters.get(winner)
    missing = "failed" if reply == ERROR_REPLY else "unparsable"
    return Game(
        question_id=row.question_id,
        a=row.model_1,
        b=row.model_2,
        order=order,
        score=None if verdict is None else winner_score(verdict, order),
        verdict=verdict,
        status=missing if verdict is None else "ok",
        category=None,
        judge_identity={"benchmark": "mt-bench", "judge": row.judge[0]},
        turn=row.turn,
        reply=reply,
        prompt=_user(prompt),
        extra={"prompt_name": row.judge[1], **row.rest},
    )


def _user(prompt: str | None) -> Messages | None:
    return None if prompt is None else ({"role": "user", "content": prompt},)


# Scores


def winner_score(winner: str, order: int) -> float:
    """Points of system ``a`` for `parse_winner`'s letter about the answers as shown."""
    if winner == "C":
        return 0.5
    return 1.0 if (winner == "A") == (order == 0) else 0.0


def published_win_rate(games: Sequence[Game]) -> float | None:
    """FastChat's ``win_rate_adjusted`` of system ``a``: a win is both orders', all else is a tie, ties half.

    Lines with an ``error`` in either order are left out, as there; None if nothing is left.
    """
    lines: dict[tuple[str, int], list[float]] = {}
    for game in games:
        scores = lines.setdefault((game.question_id, game.turn), [])
        scores += [] if game.score is None else [game.score]
    pairs = [scores for scores in lines.values() if len(scores) == 2]
    points = [first if first == second else 0.5 for first, second in pairs]
    return float(np.mean(points)) if points else None
