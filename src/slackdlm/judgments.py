"""What a judge said: games between two systems, grades of one. The rows that judges write and statistics read.

Judgments of different `judge_identity` are never merged. A call that failed, a reply without a verdict and a grade
outside its scale stay in the file with their status: nothing is scored that was not said, nothing vanishes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
from annotated_types import Ge, Le
from pydantic import AfterValidator, ConfigDict

from slackdlm.errors import DataError, show
from slackdlm.jsonl import (
    Id,
    Number,
    Object,
    Text,
    Whole,
    add_once,
    check,
    must,
    one_of,
    read_rows,
    write_rows,
)

GameStatus = Literal["ok", "failed", "unparsable"]
GradeStatus = Literal["ok", "failed", "unparsable", "out_of_range"]
Order = Annotated[Literal[0, 1], one_of(0, 1)]


_CHAT = "a list of turns with role and content"


def is_chat(value: Any) -> bool:
    """Whether these are turns with the texts ``role`` and ``content``."""
    return isinstance(value, list | tuple) and all(
        isinstance(turn, dict)
        and all(isinstance(cast("Any", turn).get(key), str) for key in ("role", "content"))
        for turn in cast("Sequence[object]", value)
    )


Messages = Annotated[
    tuple[Mapping[str, str], ...],
    must(is_chat, _CHAT),
    AfterValidator(tuple),
]
"""A chat as it was sent: objects with ``role`` and ``content``."""


def as_messages(value: object, *, where: str) -> Messages:
    """A chat, else DataError."""
    if not is_chat(value):
        raise DataError(f"{where}: expected {_CHAT}, got {show(value)}")
    return tuple(cast("Sequence[Mapping[str, str]]", value))


class SelfPlayError(DataError):
    """A file that compares a system with itself, which says nothing about it."""


@dataclass(frozen=True)
class Game:
    """One comparison of two systems' answers to one question, in one order."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    question_id: Id
    """The question's id in its benchmark, as text."""
    a: Text
    """Name of the first system, the one the score speaks for."""
    b: Text
    """Name of the second system, such as the baseline."""
    order: Order
    """0: ``a``'s answer was shown first; 1: ``b``'s was."""
    score: Annotated[Number, Ge(0), Le(1)] | None
    """In ``[0, 1]`` from ``a``'s point of view: 1 win, 0.5 tie, 0 loss; None if missing."""
    verdict: Text | None
    """The judge's label, about the answers as shown, such as ``A>>B``; None if there is none."""
    status: GameStatus
    """``ok``: scored; ``failed``: the call gave no reply; ``unparsable``: a reply without a verdict."""
    category: Text | None
    """The question's category, where the benchmark has them."""
    judge_identity: Object
    """Judge, prompt version and settings: everything that makes two judgments comparable."""
    reply: Text | None = None
    """What the judge wrote."""
    prompt: Messages | None = None
    """What the judge was sent."""
    extra: Object = field(default_factory=dict[str, Any])
    """Whatever else the file held, such as a time stamp."""
    turn: Annotated[Whole, Ge(1)] = 1
    """The turn compared, from 1, in benchmarks of several."""

    def __post_init__(self) -> None:
        """Refuses a row that contradicts itself."""
        if self.a == self.b:
            raise DataError(f"a and b are the same system, {show(self.a)}")
        _check_score(self.score, self.status, scored=("ok",))


@dataclass(frozen=True)
class Grade:
    """One grade of one system's answer to one question."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    question_id: Id
    """The question's id in its benchmark, as text."""
    system: Text
    """Whose answer it is."""
    turn: Annotated[Whole, Ge(1)]
    """The turn graded, from 1; in benchmarks with repeats, the repeat."""
    score: Number | None
    """On the benchmark's own scale; None if missing."""
    status: GradeStatus
    """As in `Game`; ``out_of_range``: a number off the scale, kept in ``score``, in no mean of ours."""
    category: Text | None
    """The question's category, where the benchmark has them."""
    judge_identity: Object
    """As in `Game`."""
    reply: Text | None = None
    """What the judge wrote."""
    prompt: Messages | None = None
    """What the judge was sent."""
    extra: Object = field(default_factory=dict[str, Any])
    """Whatever else the file held."""

    def __post_init__(self) -> None:
        """Refuses a row that contradicts itself."""
        _check_score(self.score, self.status, scored=("ok", "out_of_range"))


def _check_score(score: float | None, status: str, *, scored: tuple[str, ...]) -> None:
    if (score is not None) != (status in scored):
        raise DataError(f"status {status!r} and score {show(score)} contradict each other")


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
    counts = map(statuses.count, ("ok", "failed", "unparsable", "out_of_range"))
    return Tally(len(statuses), *counts)


def mean_score(judgments: Sequence[Game] | Sequence[Grade]) -> float | None:
    """The mean of the scores said, those off their scale included; None without one."""
    scores = [judgment.score for judgment in judgments if judgment.score is not None]
    return float(np.mean(scores)) if scores else None


def read_games(path: Path) -> list[Game]:
    """The games of our own ``judgments.jsonl``.

    Raises:
        DataError: If the file or a line cannot be used; names file, line and field.
    """
    games: list[Game] = []
    seen: set[tuple[object, ...]] = set()
    for where, row in read_rows(path, what="judgments (games)"):
        if isinstance(row.get("a"), str):
            refuse_self_play(row["a"], row.get("b"), where=where, is_first=not games)
        game = check(Game, row, where=where)
        label = f"{game.a!a} over {game.b!a}, order {game.order} of turn {game.turn}"
        key = (game.question_id, game.a, game.b, game.order, game.turn, identity_text(game))
        add_once(seen, key, f"{where}: {label} is judged twice on question {game.question_id!a}")
        games.append(game)
    return games


def read_grades(path: Path) -> list[Grade]:
    """The grades of our own ``judgments.jsonl``; errors as in `read_games`."""
    grades: list[Grade] = []
    seen: set[tuple[object, ...]] = set()
    for where, row in read_rows(path, what="judgments (grades)"):
        grade = check(Grade, row, where=where)
        label = f"turn {grade.turn} of {grade.system!a}"
        key = (grade.question_id, grade.system, grade.turn, identity_text(grade))
        add_once(seen, key, f"{where}: {label} is graded twice on question {grade.question_id!a}")
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
