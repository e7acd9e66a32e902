"""MT-Bench's own files: questions, answers and judgments, read and written."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from slackdlm.benchmarks.mt_bench import HIGHEST, LOWEST, REFERENCE_CATEGORIES
from slackdlm.errors import DataError
from slackdlm.jsonl import (
    Row,
    add_once,
    as_object,
    get_id,
    get_list,
    get_number,
    get_text,
    get_texts,
    read_rows,
    show,
    write_rows,
)
from slackdlm.judgments import (
    Game,
    Grade,
    GradeStatus,
    Messages,
    refuse_self_play,
)
from slackdlm.records import (
    Answer,
    Question,
    rest,
    unique,
    unique_questions,
)

_LOG = logging.getLogger(__name__)
ERROR_REPLY: Final = "$ERROR$"
"""What FastChat writes as the judgment when every call failed."""


def read_questions(path: Path, *, references: Path | None = None) -> list[Question]:
    """Questions, with the reference answers of the categories that are judged beside one.

    Args:
        path: ``question.jsonl``.
        references: The answer file of the reference model, such as ``reference_answer/gpt-4.jsonl``.
    """
    told = {} if references is None else _references(references)
    questions: list[Question] = []
    for where, row in read_rows(path, what="MT-Bench questions"):
        first, *later = get_texts(row, "turns", where=where)
        question_id = get_id(row, "question_id", where=where)
        category = get_text(row, "category", where=where)
        questions.append(
            Question(
                id=question_id,
                category=category,
                messages=({"role": "user", "content": first},),
                later_turns=tuple(later),
                reference=told.get(question_id, ()) if category in REFERENCE_CATEGORIES else (),
                extra=rest(row, "question_id", "category", "turns"),
            )
        )
    used = {question.id for question in questions if question.reference}
    if unused := [question_id for question_id in told if question_id not in used]:
        _LOG.warning(
            "%s: references not used: %d of %d, the first to question %s; only those of %s are, to questions of %s",
            references,
            len(unused),
            len(told),
            ascii(unused[0]),
            ", ".join(REFERENCE_CATEGORIES),
            path,
        )
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


def read_answers(path: Path) -> list[Answer]:
    """Answers of one or more systems; of several choices the first, as FastChat's judge does."""
    answers: list[Answer] = []
    for where, row in read_rows(path, what="MT-Bench answers"):
        choices = get_list(row, "choices", where=where)
        if not choices:
            raise DataError(f"{where}: expected at least one choice in 'choices'")
        choice = as_object(choices[0], where=f"{where}: choice 0")
        extra = rest(row, "question_id", "model_id", "choices")
        more = rest(choice, "turns")
        extra |= {"choice": more} if more != {"index": 0} else {}
        extra |= {"other_choices": choices[1:]} if len(choices) > 1 else {}
        answers.append(
            Answer(
                question_id=get_id(row, "question_id", where=where),
                system=get_text(row, "model_id", where=where),
                turns=get_texts(choice, "turns", where=f"{where}: choice 0"),
                extra=extra,
            )
        )
    return unique(answers, path=path)


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Answers as FastChat reads them."""
    rows: list[Row] = []
    for answer in answers:
        extra = dict(answer.extra)
        ids = {key: extra.pop(key) for key in ("answer_id",) if key in extra}
        choice: Row = {**extra.pop("choice", {"index": 0}), "turns": list(answer.turns)}
        choices = [choice, *extra.pop("other_choices", [])]
        row: Row = {"question_id": _number(answer.question_id), **ids, "model_id": answer.system}
        rows.append(row | {"choices": choices} | extra)
    write_rows(path, rows, ascii_only=True)


def read_judgments(path: Path) -> list[Grade]:
    """Single-answer grades; -1 is ``unparsable``, a failed call ``failed``, 0 or 11 ``out_of_range``."""
    grades: list[Grade] = []
    seen: set[tuple[str, str, int, str]] = set()
    for where, row in read_rows(path, what="MT-Bench judgments"):
        judge, prompt_name = _judge(row, where=where)
        score = get_number(row, "score", where=where)
        reply = get_text(row, "judgment", where=where)
        status: GradeStatus = "ok" if LOWEST <= score <= HIGHEST else "out_of_range"
        if score == -1:
            status = "failed" if reply == ERROR_REPLY else "unparsable"
        question_id, model = (
            get_id(row, "question_id", where=where),
            get_text(row, "model", where=where),
        )
        turn = _turn(row, where=where)
        problem = f"{where}: turn {turn} of {model!a} on question {question_id!a} is graded twice by {judge!a}"
        add_once(seen, (question_id, model, turn, judge), problem)
        known = ("question_id", "model", "judge", "user_prompt", "judgment", "score", "turn")
        grades.append(
            Grade(
                question_id=question_id,
                system=model,
                turn=turn,
                score=None if score == -1 else score,
                status=status,
                category=None,
                judge_identity={"benchmark": "mt-bench", "judge": judge},
                reply=reply,
                prompt=_prompt(row, "user_prompt", where=where),
                extra={"prompt_name": prompt_name} | rest(row, *known),
            )
        )
    return grades


def read_pairs(path: Path) -> list[Game]:
    """Pairwise judgments: two games a line, ``a`` being ``model_1``; ``error`` is ``unparsable``."""
    games: list[Game] = []
    seen: set[tuple[str, str, str, int, str]] = set()
    known = ("question_id", "model_1", "model_2", "g1_winner", "g2_winner", "judge", "turn")
    texts = ("g1_user_prompt", "g1_judgment", "g2_user_prompt", "g2_judgment")
    for where, row in read_rows(path, what="MT-Bench pairwise judgments"):
        judge, prompt_name = _judge(row, where=where)
        question_id = get_id(row, "question_id", where=where)
        one, two = (get_text(row, key, where=where) for key in ("model_1", "model_2"))
        turn = _turn(row, where=where)
        refuse_self_play(one, two, where=where, is_first=not games)
        told = f"turn {turn} of {one!a} and {two!a} on question {question_id!a}"
        key = (question_id, one, two, turn, judge)
        add_once(seen, key, f"{where}: {told} is judged twice by {judge!a}")
        orders: tuple[tuple[Literal[0, 1], str], ...] = ((0, "g1"), (1, "g2"))
        for order, number in orders:
            winner = get_text(row, f"{number}_winner", where=where)
            points = {"model_1": 1.0, "tie": 0.5, "model_2": 0.0, "error": None}
            if winner not in points:
                raise DataError(
                    f"{where}: expected model_1, model_2, tie or error in '{number}_winner', got {show(winner)}"
                )
            score = points[winner]
            reply = get_text(row, f"{number}_judgment", where=where)
            verdict = None
            if score is not None:
                verdict = "C" if score == 0.5 else "AB"[order if score == 1 else 1 - order]
            missing = "failed" if reply == ERROR_REPLY else "unparsable"
            games.append(
                Game(
                    question_id=question_id,
                    a=one,
                    b=two,
                    order=order,
                    score=score,
                    verdict=verdict,
                    status=missing if score is None else "ok",
                    category=None,
                    judge_identity={"benchmark": "mt-bench", "judge": judge},
                    turn=turn,
                    reply=reply,
                    prompt=_prompt(row, f"{number}_user_prompt", where=where),
                    extra={"prompt_name": prompt_name} | rest(row, *known, *texts),
                )
            )
    return games


def _judge(row: Row, *, where: str) -> tuple[str, str]:
    pair = get_texts(row, "judge", where=where)
    if len(pair) != 2:
        raise DataError(
            f"{where}: expected [judge, prompt name] in 'judge', got {show(row['judge'])}"
        )
    return pair[0], pair[1]


def _turn(row: Row, *, where: str) -> int:
    turn = row.get("turn", 1)
    if type(turn) is not int or turn not in (1, 2):
        raise DataError(f"{where}: expected 1 or 2 in 'turn', got {show(turn)}")
    return turn


def _prompt(row: Row, key: str, *, where: str) -> Messages | None:
    if row.get(key) is None:
        return None
    return ({"role": "user", "content": get_text(row, key, where=where)},)


def _number(question_id: str) -> int | str:
    plain = question_id.isascii() and question_id.isdigit() and len(question_id) < 18
    return int(question_id) if plain and str(int(question_id)) == question_id else question_id
