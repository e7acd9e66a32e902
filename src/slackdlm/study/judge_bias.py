"""What the judge does by itself: verdicts that follow the order shown, or the longer answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from slackdlm.judgments import Game
from slackdlm.statistics import WinRate, win_rate


@dataclass(frozen=True)
class PositionBias:
    """How verdicts depend on which answer was shown first."""

    num_pairs: int
    """Questions (and turns) with a verdict in both orders."""
    num_same: int
    """Of them, with mirrored verdicts: the same label once the order is undone."""
    num_same_winner: int
    """Of them, with the same winner, or a tie in both."""
    kappa: float | None
    """Cohen's kappa of the winner between the orders: 1 full agreement, 0 chance; None if undefined."""
    first: WinRate
    """Points of the answer shown first, 0.5 without bias; per question over those pairs."""


def position_bias(games: Sequence[Game], **draws: Any) -> PositionBias:
    """Position consistency of the judge on questions that it judged in both orders.

    ``draws`` are the arguments of `slackdlm.statistics.win_rate`.
    """
    pairs: dict[tuple[str, str, str, int], dict[int, Game]] = {}
    for game in games:
        if game.score is not None:
            pairs.setdefault((game.question_id, game.a, game.b, game.turn), {})[game.order] = game
    both = [(pair[0], pair[1]) for pair in pairs.values() if len(pair) == 2]
    # Points of ``a`` in each order: [pairs, 2].
    scores = np.array([[game.score for game in pair] for pair in both], dtype=np.float64)
    scores = scores.reshape(-1, 2)
    winners = np.sign(scores - 0.5).astype(np.int64)
    points: dict[str, list[float]] = {game.question_id: [] for game in games}
    for (game, _), (first, second) in zip(both, scores.tolist(), strict=True):
        points[game.question_id] += [first, 1.0 - second]
    return PositionBias(
        num_pairs=len(both),
        num_same=sum(_label(first) == _label(second) for first, second in both),
        num_same_winner=int((winners[:, 0] == winners[:, 1]).sum()),
        kappa=_kappa(winners),
        first=win_rate(_means(points), **draws),
    )


def length_bias(
    games: Sequence[Game], lengths: Mapping[tuple[str, str], int], **draws: Any
) -> WinRate:
    """Points of the longer answer, per question; 0.5 means length decides nothing.

    Longer may also be better: this is a description, `style_control` the adjustment. Questions
    whose answers are equally long or of unknown length count as missing.

    Args:
        games: Games of any pairs.
        lengths: Length of each answer by question id and system.
        draws: Arguments of `slackdlm.statistics.win_rate`.
    """
    points: dict[str, list[float]] = {game.question_id: [] for game in games}
    for game in games:
        a, b = (lengths.get((game.question_id, system)) for system in (game.a, game.b))
        if game.score is not None and a is not None and b is not None and a != b:
            points[game.question_id].append(game.score if a > b else 1.0 - game.score)
    return win_rate(_means(points), **draws)


def _means(points: Mapping[str, Sequence[float]]) -> Float[np.ndarray, " Q"]:
    return np.array([np.mean(p) if p else np.nan for p in points.values()], dtype=np.float64)


def _label(game: Game) -> object:
    """The verdict as if ``a`` had been shown first, ``<`` written as ``>``; points where it is no letter."""
    verdict = game.verdict
    if verdict is None or not set("ABC") & set(verdict):
        return game.score
    if game.order == 1:
        verdict = verdict.translate(str.maketrans("AB", "BA"))
    if "<" in verdict:
        verdict = verdict[::-1].replace("<", ">")
    return "A=B" if verdict == "B=A" else verdict


def _kappa(winners: Int[np.ndarray, "N 2"]) -> float | None:
    """Agreement of the two columns beyond chance."""
    if not len(winners):
        return None
    observed = float((winners[:, 0] == winners[:, 1]).mean())
    shares = np.stack([(winners == kind).mean(axis=0) for kind in (-1, 0, 1)])
    expected = float(shares.prod(axis=1).sum())
    return None if expected == 1 else (observed - expected) / (1 - expected)
