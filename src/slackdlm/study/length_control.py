"""Would a model still win with answers as long as the baseline's? AlpacaEval 2's length-controlled win rate.

A logistic regression per system on ``tanh(length difference / its deviation)``, the instruction's difficulty and a
constant; the win rate is its mean prediction at equal length. The published regression also sees 1,610 judgments of
the baseline asked to be short or long, at a tenth of the weight, and knows a difficulty for each of its 805
instructions: both come from the file ``df_gamed.csv`` (`Gamed`). Without that file the published minimal variant
leaves difficulty and those judgments out.

As published: characters as the length, an L1 penalty whose strength is chosen among ten by 5-fold cross-validation.
The published standard error is the deviation of the predictions, which are no data; ours is that of the win rate as an
estimate from the questions, the fitted coefficients included.

References:
    Dubois et al., 2024 (arXiv 2404.04475); tatsu-lab/alpaca_eval at cd543a14, ``glm_winrate.py``.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float, Int
from scipy import stats
from scipy.special import expit, logit

from slackdlm.errors import DataError
from slackdlm.jsonl import read_text
from slackdlm.judgments import Game
from slackdlm.statistics.bootstrap import Estimate, check_confidence
from slackdlm.statistics.logistic import NUM_FOLDS, Rows, cross_validated_strength, fit_l1
from slackdlm.study.questions import game_scores

GAMED_WEIGHT: Final = 0.1
"""Of a judgment of the baseline asked to be short or long: 0.2 in all for its two copies."""


@dataclass(frozen=True, eq=False)
class Gamed:
    """Judgments of the baseline asked to be short or long, one row each (``df_gamed.csv``)."""

    question_ids: tuple[str, ...]
    """The instructions, in the order of AlpacaEval's file."""
    question: Int[np.ndarray, " G"]
    """Which of them, from 0."""
    length: Float[np.ndarray, " G"]
    """Length difference over its deviation, before the ``tanh``."""
    preference: Float[np.ndarray, " G"]
    """In ``[0, 1]``."""
    difficulty: Float[np.ndarray, " I"]
    """Of each instruction."""


@dataclass(frozen=True)
class LengthControlled:
    """A win rate at equal length."""

    estimate: Estimate
    """Mean prediction at equal length, None below five questions, with a Wald interval on the log-odds over questions;
    without one where less than half a question's points lie to one side, which do not tell how far it is to the end."""
    coefficients: dict[str, float]
    """Of length, difficulty and the constant, as published."""


def read_gamed(path: Path, *, question_ids: Sequence[str]) -> Gamed:
    """``df_gamed.csv`` of the hub's ``tatsu-lab/alpaca_eval``, which numbers instructions and does not name them.

    Args:
        path: The file.
        question_ids: Of all published instructions in the order of their file (`alpaca_eval.read_questions`).

    Raises:
        DataError: If the file is something else, or of another number of instructions.
    """
    rows = list(csv.DictReader(io.StringIO(read_text(path, what="AlpacaEval's df_gamed.csv"))))
    names = ("index", "preference", "std_delta_len", "instruction_difficulty")
    if not rows or not set(names) <= rows[0].keys():
        raise DataError(f"{path}: expected AlpacaEval's df_gamed.csv with {', '.join(names)}")
    try:
        columns = {name: np.array([float(row[name]) for row in rows]) for name in names}
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: expected numbers in {', '.join(names)} ({error})") from error
    index = columns["index"].astype(np.int64)
    size = int(index.max()) + 1
    if (index != columns["index"]).any() or set(index.tolist()) != set(range(size)):
        raise DataError(f"{path}: expected every instruction from 0 to {size - 1} in 'index'")
    if size != len(question_ids):
        raise DataError(
            f"{path}: holds difficulties of {size} instructions and the question file has {len(question_ids)}; give "
            "AlpacaEval's own alpaca_eval.json beside it"
        )
    _, first = np.unique(index, return_index=True)  # the first row of each instruction counts
    difficulty = columns["instruction_difficulty"][first]
    scored = ~np.isnan(columns["preference"])
    length, preference = columns["std_delta_len"], columns["preference"][scored]
    if not np.isfinite([*difficulty, *length, *preference]).all():
        raise DataError(f"{path}: expected finite numbers in {', '.join(names)}")
    return Gamed(
        question_ids=tuple(question_ids),
        question=index[scored],
        length=length[scored],
        preference=preference,
        difficulty=difficulty,
    )


def length_controlled_win_rate(
    games: Sequence[Game], *, gamed: Gamed | None = None, confidence: float = 0.95
) -> LengthControlled:
    """The length-controlled win rate of one system over one baseline.

    Args:
        games: Of one pair of systems, with ``output_1`` (the baseline's) and ``output_2`` in ``extra``, as
            `alpaca_eval.read_judgments` gives them; with ``gamed`` of all its instructions, in any order.
        gamed: For the published variant; None: the minimal one.
        confidence: As everywhere.

    Raises:
        DataError: If a scored game lacks an output, or the games are of several pairs, or of other instructions than
            ``gamed``.
    """
    check_confidence(confidence)
    scored = game_scores(games)
    order = list(dict.fromkeys(game.question_id for game in games))
    if gamed is not None:
        _check_same(order, gamed)
        order = list(gamed.question_ids)
    outcomes = scored.at(order)
    features = _features(games, order, gamed)
    known = ~np.isnan(outcomes)
    num_scored = int(known.sum())
    if num_scored < NUM_FOLDS:
        return LengthControlled(Estimate(None, None, None, num_scored, len(order)), {})
    rows = Rows(features[known], outcomes[known], np.ones(num_scored), np.flatnonzero(known))
    if gamed is not None:
        rows = _with_gamed(rows, gamed)
    at = fit_l1(rows, strength=cross_validated_strength(rows))
    level = features.copy()
    level[:, 0] = 0.0
    ends = _interval(at, rows, level, confidence=confidence)
    names = ("length", "difficulty", "constant") if gamed is not None else ("length", "constant")
    estimate = Estimate(*ends, num_scored, len(order))
    return LengthControlled(estimate, dict(zip(names, at.tolist(), strict=True)))


def _check_same(judged: Sequence[str], gamed: Gamed) -> None:
    known = set(gamed.question_ids)
    unknown = [question for question in judged if question not in known]
    if unknown or len(judged) < len(known):
        first = f", such as {unknown[0]!a}" if unknown else ""
        raise DataError(
            f"length control: {len(unknown)} judged instructions are not in the question file{first}, and "
            f"{len(known) - len(judged) + len(unknown)} of its {len(known)} are not judged; judge the published "
            "questions, all of them, or leave --gamed out for the minimal variant"
        )


def _with_gamed(rows: Rows, gamed: Gamed) -> Rows:
    """As in the published rows: first the baseline's, which no constant favours, then the system's."""
    constant = np.zeros(gamed.question.size)
    features = [np.tanh(gamed.length), gamed.difficulty[gamed.question], constant]
    return Rows(
        np.concatenate([np.stack(features, axis=1), rows.features]),
        np.concatenate([gamed.preference, rows.outcomes]),
        np.concatenate([np.full(gamed.question.size, GAMED_WEIGHT), rows.weights]),
        np.concatenate([gamed.question, rows.question]),
    )


def _features(
    games: Sequence[Game], order: Sequence[str], gamed: Gamed | None
) -> Float[np.ndarray, "Q P"]:
    """Length, difficulty where it is known, and the constant, one row per question."""
    lengths: dict[str, float] = {}
    for game in games:
        texts = [game.extra.get(name) for name in ("output_1", "output_2")]
        if all(isinstance(text, str) for text in texts):
            lengths[game.question_id] = len(str(texts[0])) - len(str(texts[1]))
        elif game.score is not None:
            raise DataError(
                f"length control: the game on {game.question_id!a} does not hold both outputs; give judgments that do"
            )
    differences = np.array([lengths.get(question, np.nan) for question in order])
    known = differences[~np.isnan(differences)]
    spread = known.std(ddof=1) if known.size > 1 else 0.0
    length = np.tanh(differences / spread) if spread > 0 else np.zeros(len(order))
    columns = [length, np.ones(len(order))]
    if gamed is not None:
        columns.insert(1, gamed.difficulty)
    return np.stack(columns, axis=1)


def _interval(
    at: Float[np.ndarray, " P"],
    rows: Rows,
    level: Float[np.ndarray, "Q P"],
    *,
    confidence: float,
) -> tuple[float, float | None, float | None]:
    """Mean prediction and the ends of its interval, from what each question adds to it and to the coefficients."""
    predicted = expit(level @ at)
    value = float(predicted.mean())
    size = predicted.size
    # The penalty fixes coefficients at 0: what is estimated are the others.
    nonzero = np.flatnonzero(at)
    slope = ((predicted * (1 - predicted))[:, None] * level).mean(axis=0)[nonzero]
    scores = np.zeros((size, nonzero.size))
    np.add.at(scores, rows.question, rows.scores(at)[:, nonzero])
    hessian = rows.information(at)[np.ix_(nonzero, nonzero)]
    if size * min(value, 1 - value) < 0.5 or nonzero.size == 0 or np.linalg.cond(hessian) > 1e12:
        return value, None, None
    # Of a question: on the mean itself, and through the coefficients on everybody's prediction.
    influence = (predicted - value) / size + (scores - scores.mean(axis=0)) @ np.linalg.solve(
        hessian, slope
    )
    error = float(np.sqrt(size / (size - 1) * (influence**2).sum()))
    half = float(stats.norm.ppf((1 + confidence) / 2)) * error / (value * (1 - value))
    low, high = (float(expit(logit(value) + step)) for step in (-half, half))
    return value, low, high
