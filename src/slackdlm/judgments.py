"""What a judge said: games between two systems, grades of one. The rows that judges write and statistics read.

Judgments of different `judge_identity` are never merged. A call that failed, a reply without a verdict and a grade
outside its scale stay in the file with their status: nothing is scored that was not said, nothing vanishes.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

import numpy as np

from slackdlm.errors import DataError
from slackdlm.jsonl import (
    Row,
    add_once,
    get_id,
    get_number,
    get_object,
    get_optional_text,
    get_text,
    read_rows,
    refuse,
    show,
    write_rows,
)

T = TypeVar("T")

GameStatus = Literal["ok", "failed", "unparsable"]
GradeStatus = Literal["ok", "failed", "unparsable", "out_of_range"]
GAME_STATUSES: Final[tuple[GameStatus, ...]] = ("ok", "failed", "unparsable")
GRADE_STATUSES: Final[tuple[GradeStatus, ...]] = (*GAME_STATUSES, "out_of_range")
Messages = tuple[Mapping[str, str], ...]
"""A chat as it was sent: objects with ``role`` and ``content``."""


class SelfPlayError(DataError):
    """A file that compares a system with itself, which says nothing about it."""


@dataclass(frozen=True)
class Game:
    """One comparison of two systems' answers to one question, in one order."""

    question_id: str
    """The question's id in its benchmark, as text."""
    a: str
    """Name of the first system, the one the score speaks for."""
    b: str
    """Name of the second system, such as the baseline."""
    order: Literal[0, 1]
    """0: ``a``'s answer was shown first; 1: ``b``'s was."""
    score: float | None
    """In ``[0, 1]`` from ``a``'s point of view: 1 win, 0.5 tie, 0 loss; None if missing."""
    verdict: str | None
    """The judge's label, about the answers as shown, such as ``A>>B``; None if there is none."""
    status: GameStatus
    """``ok``: scored; ``failed``: the call gave no reply; ``unparsable``: a reply without a verdict."""
    category: str | None
    """The question's category, where the benchmark has them."""
    judge_identity: Mapping[str, Any]
    """Judge, prompt version and settings: everything that makes two judgments comparable."""
    reply: str | None = None
    """What the judge wrote."""
    prompt: Messages | None = None
    """What the judge was sent."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Whatever else the file held, such as a time stamp."""
    turn: int = 1
    """The turn compared, from 1, in benchmarks of several."""

    def __post_init__(self) -> None:
        """Refuses a row that contradicts itself."""
        where = f"game {show(self.question_id)}"
        if self.a == self.b:
            raise DataError(f"{where}: a and b are the same system, {show(self.a)}")
        if self.order not in (0, 1):
            raise DataError(f"{where}: expected order 0 or 1, got {show(self.order)}")
        if self.status not in GAME_STATUSES:
            raise DataError(
                f"{where}: expected status {_or(GAME_STATUSES)}, got {show(self.status)}"
            )
        if self.turn < 1:
            raise DataError(f"{where}: turns count from 1, got {self.turn}")
        _score_fits(self.score, self.status, scored=("ok",), where=where)
        if self.score is not None and not 0 <= self.score <= 1:
            raise DataError(f"{where}: expected a score in [0, 1], got {show(self.score)}")


@dataclass(frozen=True)
class Grade:
    """One grade of one system's answer to one question."""

    question_id: str
    """The question's id in its benchmark, as text."""
    system: str
    """Whose answer it is."""
    turn: int
    """The turn graded, from 1; in benchmarks with repeats, the repeat."""
    score: float | None
    """On the benchmark's own scale; None if missing."""
    status: GradeStatus
    """As in `Game`; ``out_of_range``: a number off the scale, kept in ``score``, in no mean of ours."""
    category: str | None
    """The question's category, where the benchmark has them."""
    judge_identity: Mapping[str, Any]
    """As in `Game`."""
    reply: str | None = None
    """What the judge wrote."""
    prompt: Messages | None = None
    """What the judge was sent."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Whatever else the file held."""

    def __post_init__(self) -> None:
        """Refuses a row that contradicts itself."""
        where = f"grade {show(self.question_id)}"
        if self.turn < 1:
            raise DataError(f"{where}: turns count from 1, got {self.turn}")
        if self.status not in GRADE_STATUSES:
            raise DataError(
                f"{where}: expected status {_or(GRADE_STATUSES)}, got {show(self.status)}"
            )
        _score_fits(self.score, self.status, scored=("ok", "out_of_range"), where=where)


@dataclass(frozen=True)
class Tally:
    """How many judgments there are, by what became of them."""

    num_total: int
    """All rows."""
    num_scored: int
    """Rows with a usable score."""
    num_failed: int
    """Calls without a reply."""
    num_unparsable: int
    """Replies without a verdict."""
    num_out_of_range: int
    """Grades off their scale."""


def tally(judgments: Sequence[Game] | Sequence[Grade]) -> Tally:
    """Counts by status."""
    statuses = [judgment.status for judgment in judgments]
    return Tally(
        num_total=len(statuses),
        num_scored=statuses.count("ok"),
        num_failed=statuses.count("failed"),
        num_unparsable=statuses.count("unparsable"),
        num_out_of_range=statuses.count("out_of_range"),
    )


def mean_score(judgments: Sequence[Game] | Sequence[Grade]) -> float | None:
    """The mean of the scores said, those off their scale included; None without one."""
    said = [judgment.score for judgment in judgments if judgment.score is not None]
    return float(np.mean(said)) if said else None


def read_games(path: Path) -> list[Game]:
    """The games of our own ``judgments.jsonl``.

    Raises:
        DataError: If the file or a line cannot be used; names file, line and field.
    """
    games: list[Game] = []
    seen: set[tuple[str, str, str, int, int, str]] = set()
    for where, row in read_rows(path, what="judgments (games)"):
        if isinstance(row.get("a"), str):
            refuse_self_play(row["a"], row.get("b"), where=where, is_first=not games)
        game = _located(_game, row, where)
        told = f"{game.a!a} over {game.b!a}, order {game.order} of turn {game.turn}"
        key = (game.question_id, game.a, game.b, game.order, game.turn, identity_text(game))
        add_once(seen, key, f"{where}: {told} is judged twice on question {game.question_id!a}")
        games.append(game)
    return games


def read_grades(path: Path) -> list[Grade]:
    """The grades of our own ``judgments.jsonl``; errors as in `read_games`."""
    grades: list[Grade] = []
    seen: set[tuple[str, str, int, str]] = set()
    for where, row in read_rows(path, what="judgments (grades)"):
        grade = _located(_grade, row, where)
        told = f"turn {grade.turn} of {grade.system!a}"
        key = (grade.question_id, grade.system, grade.turn, identity_text(grade))
        add_once(seen, key, f"{where}: {told} is graded twice on question {grade.question_id!a}")
        grades.append(grade)
    return grades


def identity_text(judgment: Game | Grade) -> str:
    """The judge's whole identity as JSON."""
    return json.dumps(dict(judgment.judge_identity), sort_keys=True, default=str)


def refuse_self_play(system: str, rival: object, *, where: str, is_first: bool) -> None:
    """`SelfPlayError` if a file begins with a system against itself; DataError if a later line has it."""
    if system == rival:
        raise (SelfPlayError if is_first else DataError)(
            f"{where}: {system!a} is compared with itself, which is 50 % whatever the judge says; give a file "
            "of two systems"
        )


def write_judgments(path: Path, judgments: Sequence[Game] | Sequence[Grade]) -> None:
    """One judgment a line; the file is replaced only when all of it is there."""
    write_rows(path, (asdict(judgment) for judgment in judgments))


def _located(make: Callable[..., T], row: Row, where: str) -> T:
    try:
        return make(row, where=where)
    except DataError as error:
        message = str(error)
        raise DataError(message if message.startswith(where) else f"{where}: {message}") from error


def _game(row: Row, *, where: str) -> Game:
    _no_unknown_keys(row, Game, where=where)
    return Game(
        question_id=get_id(row, "question_id", where=where),
        a=get_text(row, "a", where=where),
        b=get_text(row, "b", where=where),
        order=_one_of(row, "order", (0, 1), where=where),
        verdict=get_optional_text(row, "verdict", where=where),
        turn=_whole(row, "turn", where=where) if "turn" in row else 1,
        **_shared(row, GAME_STATUSES, where=where),
    )


def _grade(row: Row, *, where: str) -> Grade:
    _no_unknown_keys(row, Grade, where=where)
    return Grade(
        question_id=get_id(row, "question_id", where=where),
        system=get_text(row, "system", where=where),
        turn=_whole(row, "turn", where=where),
        **_shared(row, GRADE_STATUSES, where=where),
    )


def _shared(row: Row, statuses: tuple[str, ...], *, where: str) -> Row:
    score = None if row.get("score") is None else get_number(row, "score", where=where)
    prompt = None
    if row.get("prompt") is not None:
        prompt = as_messages(row["prompt"], where=f"{where}: 'prompt'")
    return {
        "score": score,
        "status": _one_of(row, "status", statuses, where=where),
        "category": get_optional_text(row, "category", where=where),
        "judge_identity": get_object(row, "judge_identity", where=where),
        "reply": get_optional_text(row, "reply", where=where),
        "prompt": prompt,
        "extra": get_object(row, "extra", where=where) if "extra" in row else {},
    }


def as_messages(value: object, *, where: str) -> Messages:
    """A chat with a text ``role`` and ``content`` in every turn, else DataError."""
    turns: list[Any] = cast("list[Any]", value) if isinstance(value, list | tuple) else [None]
    for turn in turns:
        if not isinstance(turn, dict) or not all(
            isinstance(cast("Row", turn).get(key), str) for key in ("role", "content")
        ):
            raise DataError(
                f"{where}: expected a list of turns with role and content, got {show(value)}"
            )
    return tuple(turns)


def _no_unknown_keys(row: Row, kind: type[Game] | type[Grade], *, where: str) -> None:
    known = [entry.name for entry in fields(kind)]
    for key in row:
        if key not in known:
            raise DataError(
                f"{where}: unknown key {key!a} in a {kind.__name__.lower()}; "
                f"known keys: {', '.join(known)}"
            )


def _one_of(row: Row, key: str, choices: tuple[Any, ...], *, where: str) -> Any:
    value = row.get(key)
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        refuse(row, key, _or(choices), where)
    return value


def _or(choices: tuple[Any, ...]) -> str:
    return f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"


def _whole(row: Row, key: str, *, where: str) -> int:
    value = row.get(key)
    if type(value) is not int:
        refuse(row, key, "a whole number", where)
    return value


def _score_fits(score: float | None, status: str, *, scored: tuple[str, ...], where: str) -> None:
    if (score is not None) != (status in scored):
        raise DataError(f"{where}: status {status!r} and score {show(score)} contradict each other")
    if score is not None and not abs(score) < float("inf"):
        raise DataError(f"{where}: expected a finite score, got {score}")
