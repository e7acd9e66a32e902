from dataclasses import replace

import numpy as np
import pytest
from games import game, pairs

from slackdlm.benchmarks.arena_hard import read_judgments
from slackdlm.study.judge_bias import length_bias, position_bias


def rng():
    return np.random.default_rng(0)


def test_a_judge_that_follows_the_order_is_found_out():
    result = position_bias(pairs(*[("A>B", "A>B")] * 12), rng=rng())
    assert (result.num_pairs, result.num_same, result.num_same_winner) == (12, 0, 0)
    assert result.first.value == 1.0
    assert result.first.p_value < 0.001


def test_a_judge_that_follows_the_answers_is_consistent():
    result = position_bias(pairs(("A>>B", "B>>A"), ("B>A", "A>B"), ("A>>B", "B>A")), rng=rng())
    assert (result.num_pairs, result.num_same, result.num_same_winner) == (3, 2, 3)
    assert result.first.value == 0.5
    assert result.kappa == 1.0


def test_the_same_verdict_in_another_spelling_is_the_same():
    result = position_bias(pairs(("A>B", "A<B"), ("B=A", "A=B"), ("A=B", "A=B")), rng=rng())
    assert result.num_same == 3


def test_preferences_for_the_answer_shown_first_are_no_agreement():
    """AlpacaEval's verdicts are numbers about the answers as shown."""
    games = [
        replace(each, score=score, verdict=verdict)
        for each, (score, verdict) in zip(
            pairs(("A>B", "A>B"), ("A>B", "B>A")),
            [(1.0, "1.0"), (0.0, "1.0"), (0.75, "0.75"), (0.75, "0.25")],
            strict=True,
        )
    ]
    result = position_bias(games, rng=rng())
    assert (result.num_pairs, result.num_same, result.num_same_winner) == (2, 1, 1)


def test_kappa_is_chance_corrected():
    verdicts = (
        [("A>B", "B>A")] * 4 + [("A>B", "A>B")] * 1 + [("B>A", "A>B")] * 3 + [("B>A", "B>A")] * 2
    )
    result = position_bias(pairs(*verdicts), rng=rng())
    observed, expected = 0.7, 0.5 * 0.6 + 0.5 * 0.4
    assert result.kappa == pytest.approx((observed - expected) / (1 - expected))
    assert position_bias(pairs(("A>B", "B>A")), rng=rng()).kappa is None


def test_a_missing_game_makes_no_pair():
    result = position_bias([*pairs(("A>B", None)), game("q1", 0, "A>B")], rng=rng())
    assert (result.num_pairs, result.kappa, result.first.value) == (0, None, None)
    assert result.first.num_total == 2


def test_the_longer_answer_is_looked_at_from_both_sides():
    games = pairs(("A>B", "B>A"), ("B>A", "A>B"), ("A>B", "A>B"), ("A>B", "B>A"))
    lengths = {
        ("q0", "m"): 9, ("q0", "base"): 1,
        ("q1", "m"): 1, ("q1", "base"): 9,
        ("q2", "m"): 5, ("q2", "base"): 5,
        ("q3", "m"): 5,
    }  # fmt: skip
    result = length_bias(games, lengths, rng=rng())
    assert (result.value, result.num_scored, result.num_total) == (1.0, 2, 4)


def test_published_bagel_8b_judge_gives_the_mirrored_verdict_on_100_of_175(published):
    games = read_judgments(
        published / "arena_hard" / "v0.1_judgment_bagel-8b_by_R1-Distill-70B.jsonl"
    )
    result = position_bias(games, rng=rng(), num_resamples=200)
    assert (result.num_pairs, result.num_same) == (175, 100)
