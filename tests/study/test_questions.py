from dataclasses import replace

import numpy as np
import pytest
from games import game, pairs

from slackdlm.errors import DataError
from slackdlm.judgments import Grade, Tally
from slackdlm.study.published import weighted_win_rate
from slackdlm.study.questions import game_scores, grade_scores, null_bounds

NAN = float("nan")


def rng(seed=0):
    return np.random.default_rng(seed)


def array(*values):
    return np.array(values, dtype=np.float64)


# From judgments to questions


def test_a_question_is_the_mean_of_both_games():
    result = game_scores(pairs(("A>B", "A>B"), ("A>>B", "B>A"), ("A=B", "A>B")))
    assert result.ids == ("q0", "q1", "q2")
    np.testing.assert_array_equal(result.scores, [0.5, 1.0, 0.25])


def test_a_question_with_a_missing_game_is_missing_and_bounded():
    games = pairs(("A>B", None), ("A>B", "B>A"), (None, None))
    result = game_scores([*games, game("q3", 1, "B>A")])
    np.testing.assert_array_equal(result.scores, [NAN, 1.0, NAN, NAN])
    np.testing.assert_array_equal(result.lowest, [0.5, 1.0, 0.0, 0.5])
    np.testing.assert_array_equal(result.highest, [1.0, 1.0, 1.0, 1.0])
    assert result.tally == Tally(7, 4, 3, 0, 0)
    bounds = null_bounds(result)
    assert (bounds.low, bounds.high, bounds.num_missing) == (0.5, 1.0, 3)
    np.testing.assert_array_equal(result.at(["q1", "new"]), [1.0, NAN])


def test_one_order_alone_is_enough_where_no_question_has_two():
    result = game_scores([game("q0", 0, "A>B"), game("q1", 0, "B>A")])
    np.testing.assert_array_equal(result.scores, [1.0, 0.0])


def test_every_turn_in_every_order_is_a_game():
    verdicts = [(0, 1, "A>B"), (1, 1, "A>B"), (0, 2, "A>B"), (1, 2, "B>A")]
    games = [game("q", order, verdict, turn=turn) for order, turn, verdict in verdicts]
    assert game_scores(games).scores == pytest.approx([0.75])
    lacking = [replace(each, question_id="r") for each in games[:3]]
    np.testing.assert_array_equal(game_scores([*games, *lacking]).scores, [0.75, NAN])


def test_what_may_not_be_merged_is_refused():
    (one, two) = pairs(("A>B", "A>B"))
    with pytest.raises(DataError, match="never merged"):
        game_scores([one, replace(two, judge_identity={"judge": "other"})])
    with pytest.raises(DataError, match="one pair of systems"):
        game_scores([one, replace(two, a="other")])
    with pytest.raises(DataError, match="two judgments of the same order"):
        game_scores([one, two, one])


def test_grades_are_averaged_over_turns_and_out_of_range_is_missing():
    grade = Grade("1", "m", 1, 8.0, "ok", None, {})
    grades = [
        grade,
        replace(grade, turn=2, score=6.0),
        replace(grade, question_id="2", score=9.0),
        replace(grade, question_id="2", turn=2, score=0.0, status="out_of_range"),
        replace(grade, question_id="3", score=9.0),
    ]
    result = grade_scores(grades, bounds=(1, 10))
    np.testing.assert_array_equal(result.scores, [7.0, NAN, NAN])
    np.testing.assert_array_equal(result.lowest, [7.0, 5.0, 5.0])
    np.testing.assert_array_equal(result.highest, [7.0, 9.5, 9.5])
    with pytest.raises(DataError, match="one system"):
        grade_scores([grade, replace(grade, system="x")], bounds=(1, 10))


def test_nothing_judged_is_nothing():
    result = game_scores([])
    assert result.ids == ()
    assert null_bounds(result).low is None


# The weighted win rate


def test_the_weighted_rate_is_the_published_mean_with_questions_resampled():
    games = pairs(*[("A>>B", "A>B"), ("A=B", "B>A"), ("B>A", "A>B"), ("A>B", None)] * 20)
    result = weighted_win_rate(games, rng=rng(), num_resamples=2000)
    rows = 3 + 0 + 0.5 + 1 + 0 + 0
    assert result.value == pytest.approx(rows / 8)
    assert (result.num_scored, result.num_total) == (60, 80)
    assert result.low < result.value < result.high
