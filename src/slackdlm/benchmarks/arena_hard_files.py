"""Arena-Hard's own files: questions, answers and judgments, read and written."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from slackdlm.benchmarks.arena_hard import FIRST_WINS, score_of
from slackdlm.errors import DataError
from slackdlm.jsonl import (
    Row,
    add_once,
    as_object,
    get_id,
    get_list,
    get_optional_text,
    get_text,
    read_rows,
    show,
    write_rows,
)
from slackdlm.judgments import Game, SelfPlayError, as_messages, refuse_self_play
from slackdlm.records import (
    Answer,
    Question,
    rest,
    unique,
    unique_questions,
)

Version = Literal["v2.0", "v0.1"]
UNNAMED = "baseline"
"""What the baseline is called in v0.1's judgments, which do not name it (`baseline_of` finds it)."""
V01 = "arena-hard-v0.1"


def read_questions(path: Path) -> list[Question]:
    """Questions of either version, also of the older v0.1 files with ``turns``."""
    questions: list[Question] = []
    for where, row in read_rows(path, what="Arena-Hard questions"):
        if "category" not in row or not {"uid", "question_id"} & row.keys():
            raise DataError(
                f"{where}: no question of Arena-Hard (it needs category and uid or question_id); questions of your "
                "own are answered without --benchmark and judged with --benchmark pairs"
            )
        if "turns" in row:
            turns = get_list(row, "turns", where=where)
            if len(turns) != 1:
                raise DataError(f"{where}: expected one turn in 'turns', got {len(turns)}")
            prompt = get_text(as_object(turns[0], where=where), "content", where=where)
        else:
            prompt = get_text(row, "prompt", where=where)
        questions.append(
            Question(
                id=get_id(row, _id_key(row), where=where),
                category=get_text(row, "category", where=where),
                messages=({"role": "user", "content": prompt},),
                extra=rest(row, "uid", "question_id", "category", "prompt", "turns"),
            )
        )
    return unique_questions(questions, path=path)


def read_answers(path: Path) -> list[Answer]:
    """Answers of one or more systems, v2.0 or v0.1 by what a line holds."""
    answers: list[Answer] = []
    for where, row in read_rows(path, what="Arena-Hard answers"):
        read = _answer_v01 if "choices" in row else _answer_v2
        answers.append(read(row, where=where))
    return unique(answers, path=path)


def write_answers(path: Path, answers: Sequence[Answer], *, version: Version = "v2.0") -> None:
    """Answers as the benchmark's own scripts read them.

    v2.0 repeats the prompt, so `Answer.messages` must hold it; its style control reads
    ``extra["metadata"]`` (`style_metadata`).
    """
    rows: list[Row] = []
    for answer in answers:
        where = f"answer to {show(answer.question_id)}"
        if len(answer.turns) != 1:
            raise DataError(f"{where}: Arena-Hard has one turn, got {len(answer.turns)}")
        extra = dict(answer.extra)
        if version == "v0.1":
            turn = {"content": answer.text} | extra.pop("turn", {})
            ids = {k: extra.pop(k) for k in ("answer_id",) if k in extra}
            choices = [{"index": 0, "turns": [turn]}]
            row: Row = {"question_id": answer.question_id, **ids, "model_id": answer.system}
            rows.append(row | {"choices": choices} | extra)
            continue
        if not answer.messages:
            raise DataError(f"{where}: the v2.0 format repeats the prompt; give it in messages")
        ids = {k: extra.pop(k) for k in ("ans_id",) if k in extra}
        content = {"answer": answer.text} | extra.pop("content", {})
        system = extra.pop("system_turns", [])  # of the answering tool, not of the question
        messages = [*system, *answer.messages, {"role": "assistant", "content": content}]
        row = {"uid": answer.question_id, **ids, "model": answer.system}
        rows.append(row | {"messages": messages} | extra)
    write_rows(path, rows)


def read_judgments(path: Path) -> list[Game]:
    """Games of either version; ``a`` is the model and ``b`` the baseline, `UNNAMED` where it has no name (v0.1).

    A null game is ``failed``. A null score beside a reply, or a label that is no verdict, is ``unparsable``.
    """
    games: list[Game] = []
    seen: set[tuple[str, str, str]] = set()
    for where, row in read_rows(path, what="Arena-Hard judgments"):
        question_id = get_id(row, _id_key(row), where=where)
        model, judge = (get_text(row, key, where=where) for key in ("model", "judge"))
        against = get_text(row, "baseline", where=where) if "baseline" in row else UNNAMED
        benchmark = "arena-hard" if "uid" in row else V01
        problem = f"{where}: {model!a} on question {question_id!a} is judged twice by {judge!a}"
        add_once(seen, (question_id, model, judge), problem)
        refuse_self_play(model, against, where=where, is_first=not games)
        played = get_list(row, "games", where=where)
        if len(played) != 2:
            raise DataError(f"{where}: expected two games, got {len(played)}")
        known = ("uid", "question_id", "category", "judge", "model", "baseline", "games")
        extra = rest(row, *known)
        category = get_optional_text(row, "category", where=where)
        for order, game in zip((1, 0), played, strict=True):
            score, verdict, status, told = _played(game, order, where=f"{where}: game {2 - order}")
            games.append(
                Game(
                    question_id=question_id,
                    a=model,
                    b=against,
                    order=order,
                    score=score,
                    verdict=verdict,
                    status=status,
                    category=category,
                    judge_identity={"benchmark": benchmark, "judge": judge},
                    reply=told.pop("reply", None),
                    prompt=told.pop("prompt", None),
                    extra=told | ({"row": extra} if extra else {}),
                )
            )
    _refuse_equal_answers(games, path=path)
    return games


def shown_answers(game: Game) -> tuple[str, str] | None:
    """The answers of ``a`` and ``b`` as they stand in the judge's prompt; None without one."""
    text = game.prompt[-1]["content"] if game.prompt else ""
    found = re.search(
        r"<\|The Start of Assistant A's Answer\|>\n(.*?)\n<\|The End of Assistant A's Answer\|>\n\n"
        r"<\|The Start of Assistant B's Answer\|>\n(.*)\n<\|The End of Assistant B's Answer\|>",
        text,
        re.S,
    )
    if found is None:
        return None
    return (found[1], found[2]) if game.order == 0 else (found[2], found[1])


def baseline_of(games: Sequence[Game], answers: Sequence[Answer]) -> str | None:
    """Whose answers stand in the prompts of v0.1's unnamed baseline; None unless one system's do, and all of them."""
    told = {(answer.question_id, answer.system): answer.text.strip() for answer in answers}
    shown = {game.question_id: both[1].strip() for game in games if (both := shown_answers(game))}
    fits = [
        system
        for system in dict.fromkeys(answer.system for answer in answers)
        if shown and all(told.get((one, system)) == text for one, text in shown.items())
    ]
    return fits[0] if len(fits) == 1 else None


def _refuse_equal_answers(games: Sequence[Game], *, path: Path) -> None:
    """`SelfPlayError` where the baseline has no name and all its answers are the model's."""
    shown = [both for game in games if game.b == UNNAMED and (both := shown_answers(game))]
    if shown and all(one == two for one, two in shown):
        raise SelfPlayError(
            f"{path}: {games[0].a!a} and the baseline give the same {len({g.question_id for g in games})} answers: "
            "it is compared with itself, which is 50 % whatever the judge says; give a file of two systems"
        )


def _id_key(row: Row) -> str:
    return "uid" if "uid" in row else "question_id"


def _answer_v2(row: Row, *, where: str) -> Answer:
    messages = get_list(row, "messages", where=where)
    if len(messages) < 2:
        raise DataError(f"{where}: expected the prompt and the answer in 'messages'")
    last = as_object(messages[-1], where=f"{where}: last message")
    content = last.get("content")
    if last.get("role") != "assistant":
        raise DataError(
            f"{where}: the last message must be the assistant's, got {show(last.get('role'))}"
        )
    told = content if isinstance(content, dict) else {"answer": content}
    told = cast("Row", told)
    extra = rest(row, "uid", "model", "messages")
    more = rest(told, "answer")
    before = as_messages(messages[:-1], where=where)
    system = [turn for turn in before if turn["role"] == "system"]
    extra |= {"system_turns": system} if system else {}
    return Answer(
        question_id=get_id(row, "uid", where=where),
        system=get_text(row, "model", where=where),
        turns=(get_text(told, "answer", where=f"{where}: last message"),),
        messages=tuple(turn for turn in before if turn["role"] != "system"),
        extra=extra | ({"content": more} if more else {}),
    )


def _answer_v01(row: Row, *, where: str) -> Answer:
    choices = get_list(row, "choices", where=where)
    if len(choices) != 1:
        raise DataError(f"{where}: expected one choice, got {len(choices)}")
    turns = get_list(as_object(choices[0], where=where), "turns", where=where)
    if len(turns) != 1:
        raise DataError(f"{where}: expected one turn, got {len(turns)}")
    turn = as_object(turns[0], where=where)
    more = rest(turn, "content")
    return Answer(
        question_id=get_id(row, "question_id", where=where),
        system=get_text(row, "model_id", where=where),
        turns=(get_text(turn, "content", where=where),),
        extra=rest(row, "question_id", "model_id", "choices") | ({"turn": more} if more else {}),
    )


def _played(
    game: object, order: int, *, where: str
) -> tuple[float | None, str | None, Literal["ok", "failed", "unparsable"], Row]:
    if game is None:
        return None, None, "failed", {}
    row = as_object(game, where=where)
    label = row.get("score")
    if label is not None and not isinstance(label, str):
        raise DataError(f"{where}: expected a verdict or null in 'score', got {show(label)}")
    told = rest(row, "score", "judgment", "prompt", "user_prompt")
    judgment = row.get("judgment")
    if isinstance(judgment, dict):
        judgment = cast("Row", judgment)
        told["reply"] = get_text(judgment, "answer", where=where)
        more = rest(judgment, "answer")
        told |= {"judgment": more} if more else {}
    elif judgment is not None:
        told["reply"] = get_text(row, "judgment", where=where)
    if row.get("user_prompt") is not None:
        told["prompt"] = ({"role": "user", "content": get_text(row, "user_prompt", where=where)},)
    elif row.get("prompt") is not None:
        told["prompt"] = as_messages(row["prompt"], where=where)
    if label in FIRST_WINS:
        return score_of(label, order), label, "ok", told
    if label is None and "reply" not in told:
        return None, None, "failed", told
    return None, label, "unparsable", told
