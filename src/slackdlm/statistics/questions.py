"""From judgments to one number per question: the unit of every interval and test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from slackdlm.errors import DataError
from slackdlm.judgments import Game, Grade, Tally, tally


@dataclass(frozen=True, eq=False)
class QuestionScores:
    """One system's score per question; with games, against one rival."""

    ids: tuple[str, ...]
    """The questions, sorted."""
    scores: Float[np.ndarray, " Q"]
    """Mean over a question's judgments; NaN unless all of them are scored."""
    lowest: Float[np.ndarray, " Q"]
    """The same if every missing judgment had been the worst there is."""
    highest: Float[np.ndarray, " Q"]
    """The same if every missing judgment had been the best there is."""
    tally: Tally
    """Judgments by what became of them."""

    @property
    def whole(self) -> frozenset[str]:
        """Questions that have a score: all of their judgments do."""
        return frozenset(
            one for one, score in zip(self.ids, self.scores, strict=True) if not np.isnan(score)
        )

    def at(self, ids: Sequence[str]) -> Float[np.ndarray, " Q"]:
        """The scores of these questions, NaN where there is none."""
        known = dict(zip(self.ids, self.scores, strict=True))
        return np.array([known.get(one, np.nan) for one in ids], dtype=np.float64)


def game_scores(games: Sequence[Game]) -> QuestionScores:
    """Points of system ``a`` per question: the mean over its games, both orders and all turns.

    A question has as many games as the fullest one; one that lacks a game is missing, for a single
    order carries the judge's position bias. Where every question was shown in one order alone
    (`in_one_order`), that order is what was asked.

    Raises:
        DataError: If the games are of several pairs or judges, or a game is there twice.
    """
    _one(games, [(game.a, game.b) for game in games], "pair of systems")
    keys = [(game.order, game.turn) for game in games]
    if in_one_order(games):
        keys = [(0, game.turn) for game in games]
    return _gathered(games, keys, (0.0, 1.0))


def in_one_order(games: Sequence[Game]) -> bool:
    """Whether no question (and turn) was shown in both orders, as in WildBench's and AlpacaEval's files."""
    orders: dict[tuple[str, str, str, int], int] = {}
    for game in games:
        shown = (game.question_id, game.a, game.b, game.turn)
        if orders.setdefault(shown, game.order) != game.order:
            return False
    return True


def grade_scores(grades: Sequence[Grade], *, bounds: tuple[float, float]) -> QuestionScores:
    """Grade of one system per question: the mean over its turns or repeats.

    Args:
        grades: All of one system by one judge.
        bounds: Worst and best grade of the benchmark.

    Raises:
        DataError: If the grades are of several systems or judges, or a turn is graded twice.
    """
    _one(grades, [grade.system for grade in grades], "system")
    return _gathered(grades, [(grade.turn,) for grade in grades], bounds)


def common_ids(first: QuestionScores, second: QuestionScores) -> tuple[str, ...]:
    """Questions that either has judgments of, sorted: the denominator of a paired comparison."""
    return tuple(sorted({*first.ids, *second.ids}))


def _one(judgments: Sequence[Game] | Sequence[Grade], names: Sequence[object], what: str) -> None:
    """DataError if the judgments are of several of these names, or of several judges, prompts or settings."""
    found = sorted(set(map(ascii, names)))
    if len(found) > 1:
        raise DataError(
            f"expected judgments of one {what}, got {len(found)}: {', '.join(found[:3])}"
        )
    identities = {_plain(judgment.judge_identity) for judgment in judgments}
    if len(identities) > 1:
        shown = "; ".join(sorted(identities)[:3])
        raise DataError(
            f"judgments of {len(identities)} judge identities are never merged; "
            f"compare them one by one: {shown[:400]}"
        )


def _gathered(
    judgments: Sequence[Game] | Sequence[Grade],
    keys: Sequence[tuple[int, ...]],
    bounds: tuple[float, float],
) -> QuestionScores:
    by_question: dict[str, dict[tuple[int, ...], float]] = {}
    for judgment, key in zip(judgments, keys, strict=True):
        own = by_question.setdefault(judgment.question_id, {})
        if key in own:
            raise DataError(
                f"question {judgment.question_id!a}: two judgments of the same order and turn; keep one"
            )
        own[key] = np.nan if judgment.score is None or judgment.status != "ok" else judgment.score
    ids = tuple(sorted(by_question))
    wanted = sorted(set(keys))
    table = np.array(
        [[by_question[one].get(key, np.nan) for key in wanted] for one in ids], dtype=np.float64
    ).reshape(len(ids), len(wanted))
    missing = np.isnan(table)
    return QuestionScores(
        ids=ids,
        scores=table.mean(axis=1) if wanted else np.empty(0),
        lowest=np.where(missing, bounds[0], table).mean(axis=1) if wanted else np.empty(0),
        highest=np.where(missing, bounds[1], table).mean(axis=1) if wanted else np.empty(0),
        tally=tally(judgments),
    )


def _plain(identity: Any) -> str:
    return ascii(sorted(((str(key), str(value)) for key, value in identity.items())))
