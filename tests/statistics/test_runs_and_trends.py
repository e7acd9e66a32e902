"""Repeats, training runs, doses."""

import numpy as np
import pytest
from scipy import stats
from score_arrays import FEW, NAN, array, enumerated_p, rng

from slackdlm.errors import DataError
from slackdlm.statistics import (
    Estimate,
    average_over_seeds,
    dose_trend,
    mean_interval,
    over_training_runs,
)


def test_decoding_seeds_are_averaged_inside_the_question():
    result = average_over_seeds(np.array([[1.0, NAN, NAN], [0.0, 3.0, NAN]]))
    np.testing.assert_array_equal(result, [0.5, 3.0, NAN])


def test_training_runs_get_one_mean_and_two_intervals():
    table = rng(1).normal(0, 0.3, (3, 80)) + array(0.2, 0.5, 0.8)[:, None]
    result = over_training_runs(table, rng=rng())
    assert result.these_runs.value == result.new_runs.value == pytest.approx(table.mean())
    assert result.per_run == pytest.approx(tuple(table.mean(axis=1)))
    assert (
        result.new_runs.low < result.these_runs.low < result.these_runs.high < result.new_runs.high
    )


def test_training_runs_match_the_formula_written_out():
    table = np.array([[1.0, 2.0, 4.0], [2.0, 2.0, 7.0]])
    by_run = np.std([7 / 3, 11 / 3], ddof=1) / np.sqrt(2)
    by_question = np.std([1.5, 2.0, 5.5], ddof=1) / np.sqrt(3)
    error = np.hypot(by_run, by_question)
    degrees = error**4 / (by_run**4 / 1 + by_question**4 / 2)
    result = over_training_runs(table, rng=rng(), confidence=0.9).new_runs
    assert result.high - 3.0 == pytest.approx(stats.t.ppf(0.95, degrees) * error)
    assert 3.0 - result.low == pytest.approx(result.high - 3.0)


def test_the_interval_for_new_runs_covers_at_three_runs():
    draws = rng(17)
    covered = 0
    for _ in range(500):
        runs, cells = draws.normal(0, 0.1, (3, 1)), draws.normal(0, 0.3, (3, 60))
        table = runs + cells + draws.normal(0, 0.3, 60)
        result = over_training_runs(table, rng=draws, num_resamples=100).new_runs
        covered += result.low <= 0 <= result.high
    assert 0.92 <= covered / 500 <= 0.98


def test_one_training_run_says_nothing_about_new_ones():
    result = over_training_runs(np.array([[0.0, 1.0], [NAN, NAN]]), rng=rng(), num_resamples=FEW)
    assert result.per_run == (0.5, None)
    assert result.these_runs.low is not None
    assert result.new_runs == Estimate(0.5, None, None, 2, 2)


@pytest.mark.parametrize("num_runs", [1, 3])
def test_training_runs_whose_questions_all_agree_have_an_exact_interval(num_runs: int):
    table = np.full((num_runs, 16), 0.5)
    result = over_training_runs(table, rng=rng(), bounds=(0.0, 1.0))
    expected = mean_interval(table[0], rng=rng(), bounds=(0.0, 1.0))
    assert result.these_runs == expected
    assert 0.4 < expected.low < 0.5 < expected.high < 0.6
    ends = (None, None) if num_runs == 1 else (expected.low, expected.high)
    assert (result.new_runs.low, result.new_runs.high) == ends


def test_training_runs_that_agree_exactly_give_zero_width():
    result = over_training_runs(np.ones((3, 4)), rng=rng(), num_resamples=FEW)
    assert result.new_runs == Estimate(1.0, 1.0, 1.0, 4, 4)


def test_unscored_training_runs_give_no_number():
    result = over_training_runs(np.full((2, 3), NAN), rng=rng())
    assert result.per_run == (None, None)
    assert result.these_runs == result.new_runs == Estimate(None, None, None, 0, 3)


def test_an_interval_over_runs_stays_within_the_range_of_the_score():
    table = array(0.9, 1.0)[:, None] * np.ones((2, 3)) - array(0.0, 0.01, 0.02)
    wide = over_training_runs(table, rng=rng(), num_resamples=200).new_runs
    cut = over_training_runs(table, rng=rng(), num_resamples=200, bounds=(0, 1)).new_runs
    assert wide.high > 1
    assert wide.low < 0.5
    assert (cut.low, cut.high) == (max(wide.low, 0), 1.0)


@pytest.mark.parametrize("level", [1.0, 0.1])
def test_runs_that_agree_are_not_certain_where_the_range_is_known(level):
    table = np.full((3, 8), level)
    result = over_training_runs(table, rng=rng(), num_resamples=200, bounds=(0, 1))
    assert result.new_runs == result.these_runs
    assert result.new_runs.low == pytest.approx(level * 0.05 ** (1 / 8))


def test_one_question_says_nothing_about_new_runs():
    result = over_training_runs(array(0.25, 0.75)[:, None], rng=rng(), num_resamples=200)
    assert (result.new_runs.value, result.new_runs.low, result.new_runs.high) == (0.5, None, None)


def test_the_slope_is_least_squares_per_question():
    doses = array(0.0, 0.1, 0.3)
    table = rng(1).normal(size=(3, 6))
    slopes = [stats.linregress(doses, column).slope for column in table.T]
    result = dose_trend(table, doses, rng=rng(), num_resamples=FEW)
    assert result.value == pytest.approx(np.mean(slopes))
    assert result.p_value == pytest.approx(enumerated_p(slopes))


def test_a_missing_dose_leaves_the_rest_of_the_question():
    doses = array(0.0, 0.1, 0.2)
    table = np.array([[1.0, 1.0, NAN], [NAN, 0.5, NAN], [0.0, 0.0, 1.0]])
    result = dose_trend(table, doses, rng=rng(), num_resamples=FEW)
    assert result.value == pytest.approx(-5.0)
    assert (result.num_scored, result.num_total) == (2, 3)


def test_a_falling_score_is_seen_and_a_flat_one_is_not():
    doses = array(0.0, 0.01, 0.03, 0.1)
    noise = rng(2).normal(0, 0.1, (4, 80))
    falling = dose_trend(noise - 2 * doses[:, None], doses, rng=rng())
    flat = dose_trend(noise, doses, rng=rng())
    assert falling.high < 0
    assert falling.p_value < 0.001
    assert flat.low < 0 < flat.high
    assert flat.p_value > 0.05


@pytest.mark.parametrize("level", [0.5, 1.0, 1 / 3])
@pytest.mark.parametrize("doses", [[0, 0.05, 0.2], [0, 0.01, 0.02, 0.05, 0.1], [0, 0.07]])
def test_scores_that_never_move_are_no_trend(level, doses):
    doses = array(*doses)
    result = dose_trend(np.full((doses.size, 16), level), doses, rng=rng(), num_resamples=FEW)
    assert (result.value, result.low, result.high, result.p_value) == (0, 0, 0, 1)


def test_flat_scores_are_not_certain_where_their_range_is_known():
    doses, flat = array(0.0, 0.1, 0.3), np.full((3, 8), 0.5)
    flat[2, 0] = NAN  # its two doses, 0.1 apart, allow the steepest slope: 1 / 0.1
    result = dose_trend(flat, doses, rng=rng(), bounds=(0.0, 1.0))
    half = 10 * (1 - 0.05 ** (1 / 8))
    assert (result.value, result.low, result.high) == pytest.approx((0.0, -half, half))
    whole = dose_trend(flat[:, 1:], doses, rng=rng(), bounds=(0.0, 2.0))
    steepest = stats.linregress(doses, [0.0, 0.0, 2.0]).slope
    assert whole.high == pytest.approx(steepest * (1 - 0.05 ** (1 / 7)))
    assert dose_trend(flat, doses, rng=rng()).high == 0.0


def test_scores_that_fall_and_rise_as_much_are_no_trend():
    table = np.tile(array(1 / 3, 0.1, 1 / 3)[:, None], (1, 16))
    result = dose_trend(table, array(0.1, 0.2, 0.3), rng=rng(), num_resamples=FEW)
    assert (result.value, result.p_value) == (0, 1)


def test_equal_doses_are_refused():
    with pytest.raises(DataError, match="distinct"):
        dose_trend(np.ones((2, 3)), array(0.1, 0.1), rng=rng())
