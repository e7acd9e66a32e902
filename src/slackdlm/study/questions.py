"""From judgments to one number per question: the unit of every interval and test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from slackdlm.errors import DataError
from slackdlm.judgments import Game, Grade, Tally, tally


@dataclass(frozen=True)
class NullBounds:
    """What a mean could be if the missing judgments were there."""

    low: float | None
    """If all of them had been the worst; None without a question."""
    high: float | None
    """If all of them had been the best."""
    num_missing: int
    """Questions not scored."""


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
        pairs = zip(self.ids, self.scores, strict=True)
        return frozenset(question for question, score in pairs if not np.isnan(score))

    def at(self, ids: Sequence[str]) -> Float[np.ndarray, " Q"]:
        """The scores of these questions, NaN where there is none."""
        known = dict(zip(self.ids, self.scores, strict=True))
        return np.array([known.get(question, np.nan) for question in ids], dtype=np.float64)


def game_scores(games: Sequence[Game]) -> QuestionScores:
    """Points of system ``a`` per question: the mean over its games, both orders and all turns.

    A question has as many games as the fullest one; one that lacks a game is missing, for a single
    order carries the judge's position bias. Where every question was judged in one order alone
    (`in_one_order`), that order is enough.

    Raises:
        DataError: If the games are of several pairs or judges, or a game is there twice.
    """
    _check_alike(games, {ascii((game.a, game.b)) for game in games}, "pair of systems")
    only_turns = in_one_order(games)
    keys = [(0 if only_turns else game.order, game.turn) for game in games]
    return _gathered(games, keys, (0.0, 1.0))


def in_one_order(games: Sequence[Game]) -> bool:
    """Whether no question (and turn) was shown in both orders, as in WildBench's and AlpacaEval's files."""
    pairs = {(game.question_id, game.a, game.b, game.turn) for game in games}
    return len({(g.question_id, g.a, g.b, g.turn, g.order) for g in games}) == len(pairs)


def grade_scores(grades: Sequence[Grade], *, bounds: tuple[float, float]) -> QuestionScores:
    """Grade of one system per question: the mean over its turns or repeats.

    Args:
        grades: All of one system by one judge.
        bounds: Worst and best grade of the benchmark.

    Raises:
        DataError: If the grades are of several systems or judges, or a turn is graded twice.
    """
    _check_alike(grades, {ascii(grade.system) for grade in grades}, "system")
    return _gathered(grades, [(grade.turn,) for grade in grades], bounds)


def null_bounds(scores: QuestionScores) -> NullBounds:
    """The mean over all questions under the worst and the best case for every missing judgment.

    The reported mean leaves questions with a missing judgment out; if what is missing is not missing
    at random, it may lie anywhere between these.
    """
    if not scores.ids:
        return NullBounds(None, None, 0)
    low, high = float(scores.lowest.mean()), float(scores.highest.mean())
    return NullBounds(low, high, int(np.isnan(scores.scores).sum()))


def _check_alike(judgments: Sequence[Game] | Sequence[Grade], names: set[str], what: str) -> None:
    """DataError if there are several of these names, or several judges, prompts or settings."""
    if len(names) > 1:
        raise DataError(
            f"expected judgments of one {what}, got {len(names)}: {', '.join(sorted(names)[:3])}"
        )
    identities = {
        ascii(sorted((str(key), str(value)) for key, value in judgment.judge_identity.items()))
        for judgment in judgments
    }
    if len(identities) > 1:
        raise DataError(
            f"judgments of {len(identities)} judge identities are never merged; "
            f"compare them one by one: {'; '.join(sorted(identities)[:3])[:400]}"
        )


def _gathered(
    judgments: Sequence[Game] | Sequence[Grade],
    keys: Sequence[tuple[int, ...]],
    bounds: tuple[float, float],
) -> QuestionScores:
    """One row per question and one column per order and turn, averaged over the columns."""
    cells: dict[tuple[str, tuple[int, ...]], float] = {}
    for judgment, key in zip(judgments, keys, strict=True):
        cell = judgment.question_id, key
        if cell in cells:
            raise DataError(
                f"question {judgment.question_id!a}: two judgments of the same order and turn; keep one"
            )
        score = judgment.score if judgment.status == "ok" else None
        cells[cell] = np.nan if score is None else score
    ids = tuple(sorted({judgment.question_id for judgment in judgments}))
    columns = sorted(set(keys))
    table = np.array([[cells.get((q, key), np.nan) for key in columns] for q in ids])
    table = table.reshape(len(ids), max(len(columns), 1))
    missing = np.isnan(table)
    return QuestionScores(
        ids=ids,
        scores=table.mean(axis=1),
        lowest=np.where(missing, bounds[0], table).mean(axis=1),
        highest=np.where(missing, bounds[1], table).mean(axis=1),
        tally=tally(judgments),
    )
