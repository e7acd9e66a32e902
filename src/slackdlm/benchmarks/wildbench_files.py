"""WildBench's own files: questions, answers and judgments, read and written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from slackdlm.benchmarks.wildbench import (
    HIGHEST,
    LOWEST,
    choice_score,
    number_of,
)
from slackdlm.errors import DataError
from slackdlm.jsonl import (
    Row,
    add_once,
    get_id,
    get_list,
    get_text,
    get_texts,
    read_items,
    show,
    write_items,
)
from slackdlm.judgments import (
    Game,
    Grade,
    GradeStatus,
    Messages,
    as_messages,
    refuse_self_play,
)
from slackdlm.records import (
    Answer,
    Question,
    rest,
    unique,
    unique_questions,
)


def read_questions(path: Path) -> list[Question]:
    """Tasks of configuration v2, from JSON, JSONL or Parquet."""
    questions: list[Question] = []
    for where, row in read_items(path, what="WildBench tasks"):
        turns = [
            {key: turn.get(key) for key in ("role", "content")} if isinstance(turn, dict) else turn
            for turn in get_list(row, "conversation_input", where=where)
        ]
        messages = as_messages(turns, where=where)
        if not messages or messages[-1]["role"] != "user":
            raise DataError(f"{where}: expected a conversation that ends with the user's turn")
        checklist = get_list(row, "checklist", where=where)
        used = ("session_id", "conversation_input", "checklist", "primary_tag")
        questions.append(
            Question(
                id=get_id(row, "session_id" if "session_id" in row else "id", where=where),
                category=get_text(row, "primary_tag", where=where),
                messages=messages,
                checklist=get_texts(row, "checklist", where=where) if checklist else (),
                extra=rest(row, *used),
            )
        )
    return unique_questions(questions, path=path)


def read_answers(path: Path) -> list[Answer]:
    """Outputs of one or more systems; of several samples the first, as its judge does."""
    answers: list[Answer] = []
    for where, row in read_items(path, what="WildBench outputs"):
        output = row.get("output")
        texts = [output] if isinstance(output, str) else [*get_texts(row, "output", where=where)]
        extra = rest(row, "session_id", "generator", "output")
        extra |= {"other_outputs": texts[1:]} if len(texts) > 1 else {}
        extra |= {"output_is_text": True} if isinstance(output, str) else {}
        answers.append(
            Answer(
                question_id=get_id(row, "session_id", where=where),
                system=get_text(row, "generator", where=where),
                turns=(texts[0],),
                messages=_asked(row, where=where),
                extra=extra,
            )
        )
    return unique(answers, path=path)


def _asked(row: Row, *, where: str) -> Messages:
    """The conversation that an output answers: its turns' texts, the user's first; empty where it is not there."""
    history = row.get("chat_history")
    turns = cast("list[object]", history) if isinstance(history, list) else []
    if not all(isinstance(turn, str) for turn in turns):
        return as_messages(turns, where=f"{where}: 'chat_history'")
    return tuple(
        {"role": "assistant" if place % 2 else "user", "content": str(text)}
        for place, text in enumerate(turns)
    )


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Outputs as WildBench's own ``eval.py`` reads them."""
    rows: list[Row] = []
    for answer in answers:
        extra = dict(answer.extra)
        output: object = [answer.text, *extra.pop("other_outputs", [])]
        if extra.pop("output_is_text", False):
            output = answer.text
        row: Row = {"session_id": answer.question_id, "output": output, "generator": answer.system}
        rows.append(row | extra)
    write_items(path, rows)


def read_judgments(path: Path) -> list[Grade]:
    """WB-Score grades. A score that is no plain number is ``unparsable``, 0 or 11 ``out_of_range``.

    Each row holds ``session_id`` and ``score`` (or ``parsed_result.score``). Where it does not say whose answer it is
    (``model_test`` or ``generator``), the file's stem is the system. The judge's name is that of a folder
    ``eval=NAME`` on the path, else ``unknown``.
    """
    judge = _from_folders(path, "eval=") or "unknown"
    grades: list[Grade] = []
    seen: set[tuple[str, str]] = set()
    for where, row in read_items(path, what="WildBench judgments"):
        question_id = get_id(row, "session_id", where=where)
        key = next((key for key in ("model_test", "generator") if key in row), None)
        system = path.stem if key is None else get_text(row, key, where=where)
        add_once(
            seen, (question_id, system), f"{where}: {system!a} is graded twice on {question_id!a}"
        )
        parsed = row.get("parsed_result")
        told = cast("Row", parsed) if isinstance(parsed, dict) else {}
        score = number_of(row.get("score", told.get("score")))
        status: GradeStatus = "unparsable"
        if score is not None:
            status = "ok" if LOWEST <= score <= HIGHEST else "out_of_range"
        elif row.get("error") not in (None, "N/A"):
            status = "failed"
        grades.append(
            Grade(
                question_id=question_id,
                system=system,
                turn=1,
                score=score,
                status=status,
                category=None,
                judge_identity={"benchmark": "wildbench", "judge": judge},
                reply=json.dumps(parsed, ensure_ascii=False) if isinstance(parsed, dict) else None,
                extra=rest(row, "session_id", key or "") | ({"system_key": key} if key else {}),
            )
        )
    return grades


def read_pairs(path: Path) -> list[Game]:
    """WB-Reward comparisons, one order each; ``b`` is the reference.

    Each row holds ``model_A``, ``model_B``, ``winner`` and ``extent``. The reference's name is that of a folder
    ``ref=NAME`` on the path, the judge's as in `read_judgments`.
    """
    judge = _from_folders(path, "eval=") or "unknown"
    against = _from_folders(path, "ref=")
    if against is None:
        raise DataError(
            f"{path}: which of the two models is the reference? put the file into a folder ref=NAME, as WildBench does"
        )
    games: list[Game] = []
    seen: set[tuple[str, str, str]] = set()
    for where, row in read_items(path, what="WildBench comparisons"):
        question_id = get_id(row, "session_id", where=where)
        shown = [get_text(row, key, where=where) for key in ("model_A", "model_B")]
        places = [
            n for n, name in enumerate(shown) if name == against or name.split("/")[-1] == against
        ]
        refuse_self_play(*shown, where=where, is_first=not games)
        if len(places) != 1:
            raise DataError(f"{where}: expected {against!a} once among {shown!a}")
        winner, extent = row.get("winner"), row.get("extent")
        if winner not in (*shown, "tie") or type(extent) is not int or extent not in (0, 1, 2):
            raise DataError(
                f"{where}: expected a winner among the two or tie, and an extent of 0, 1 or 2, got "
                f"{show(winner)} and {show(extent)}"
            )
        if (winner == "tie") != (extent == 0):
            raise DataError(
                f"{where}: winner {show(winner)} and extent {extent} contradict each other"
            )
        told = f"{shown[0]!a} and {shown[1]!a} in this order"
        key = (question_id, shown[0], shown[1])
        add_once(seen, key, f"{where}: {told} are judged twice on {question_id!a}")
        verdict = "A=B" if winner == "tie" else "AB"[shown.index(winner)] + "+" * extent
        order: Literal[0, 1] = 1 if places[0] == 0 else 0
        games.append(
            Game(
                question_id=question_id,
                a=shown[1 - places[0]],
                b=shown[places[0]],
                order=order,
                score=choice_score(verdict, order),
                verdict=verdict,
                status="ok",
                category=None,
                judge_identity={"benchmark": "wildbench", "judge": judge},
                extra=rest(row, "session_id", "model_A", "model_B", "winner", "extent"),
            )
        )
    return games


def _from_folders(path: Path, prefix: str) -> str | None:
    named = [part.removeprefix(prefix) for part in path.parts[:-1] if part.startswith(prefix)]
    return named[-1] if named else None
