"""What the judge does by itself: verdicts that follow the order shown, or the longer answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slackdlm.judgments import Game
from slackdlm.statistics.winrate import WinRate, win_rate


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


def position_bias(
    games: Sequence[Game], *, rng: np.random.Generator, num_resamples: int = 10_000
) -> PositionBias:
    """Position consistency of the judge on questions that it judged in both orders."""
    pairs: dict[tuple[str, str, str, int], dict[int, Game]] = {}
    for game in games:
        pairs.setdefault((game.question_id, game.a, game.b, game.turn), {})[game.order] = game
    both = [
        (pair[0], pair[1])
        for pair in pairs.values()
        if len(pair) == 2 and pair[0].score is not None and pair[1].score is not None
    ]
    winners = [(_winner(one), _winner(other)) for one, other in both]
    first: dict[str, list[float]] = {game.question_id: [] for game in games}
    for one, other in both:
        first[one.question_id] += [one.score or 0.0, 1.0 - (other.score or 0.0)]
    points = np.array(
        [np.mean(told) if told else np.nan for told in first.values()], dtype=np.float64
    )
    return PositionBias(
        num_pairs=len(both),
        num_same=sum(_label(one) == _label(other) for one, other in both),
        num_same_winner=sum(one == other for one, other in winners),
        kappa=_kappa(winners),
        first=win_rate(points, rng=rng, num_resamples=num_resamples),
    )


def length_bias(
    games: Sequence[Game],
    lengths: Mapping[tuple[str, str], int],
    *,
    rng: np.random.Generator,
    num_resamples: int = 10_000,
) -> WinRate:
    """Points of the longer answer, per question; 0.5 means length decides nothing.

    Longer may also be better: this is a description, `style_control` the adjustment. Questions
    whose answers are equally long or of unknown length count as missing.

    Args:
        games: Games of any pairs.
        lengths: Length of each answer by question id and system.
        rng: As everywhere.
        num_resamples: As everywhere.
    """
    points: dict[str, list[float]] = {game.question_id: [] for game in games}
    for game in games:
        own = lengths.get((game.question_id, game.a))
        other = lengths.get((game.question_id, game.b))
        if game.score is not None and own is not None and other is not None and own != other:
            points[game.question_id].append(game.score if own > other else 1.0 - game.score)
    values = np.array(
        [np.mean(told) if told else np.nan for told in points.values()], dtype=np.float64
    )
    return win_rate(values, rng=rng, num_resamples=num_resamples)


def _winner(game: Game) -> int:
    return int(np.sign((game.score or 0.0) - 0.5))


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


def _kappa(winners: Sequence[tuple[int, int]]) -> float | None:
    if not winners:
        return None
    table = np.array(winners)
    observed = float((table[:, 0] == table[:, 1]).mean())
    shares = np.stack([(table == kind).mean(axis=0) for kind in (-1, 0, 1)])
    expected = float(shares.prod(axis=1).sum())
    return None if expected == 1 else (observed - expected) / (1 - expected)
