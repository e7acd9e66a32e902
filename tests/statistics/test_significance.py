"""Sign flips, McNemar and win rates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from score_arrays import FEW, NAN, array, enumerated_p, rng

from slackdlm.errors import DataError
from slackdlm.statistics import (
    exact_mcnemar,
    sign_flip_test,
    win_points,
    win_rate,
)

points = st.lists(st.sampled_from([0.0, 0.5, 1.0, NAN]), max_size=12).map(lambda xs: array(*xs))


@given(st.lists(st.integers(-4, 4).map(lambda x: x / 4), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_small_samples_get_the_enumerated_p(differences):
    assert sign_flip_test(array(*differences), rng=rng()) == pytest.approx(
        enumerated_p(differences)
    )


def test_an_exact_p_by_hand():
    assert sign_flip_test(array(1, 2, 3, 4), rng=rng()) == 2 / 16
    assert sign_flip_test(array(1, 2, 3, 4, 0, NAN), rng=rng()) == 2 / 16
    assert sign_flip_test(array(-1, 2, 3), rng=rng()) == 4 / 8


def test_sums_equal_but_for_rounding_are_ties():
    assert sign_flip_test(array(0.1, 0.2, -0.3), rng=rng()) == 1.0
    differences = array(0.1, 0.2, 0.3, 0.7, -0.1, 1.1, -0.6)
    assert sign_flip_test(differences, rng=rng()) == pytest.approx(
        enumerated_p((differences * 10).round())
    )


def test_chunks_do_not_change_the_exact_p(monkeypatch):
    differences = array(1, 2, 3, -1, 2, 0.5, 1)
    whole = sign_flip_test(differences, rng=rng())
    monkeypatch.setattr("slackdlm.statistics.permutation.CHUNK", 50)
    assert sign_flip_test(differences, rng=rng()) == whole


def test_a_random_p_agrees_with_scipys():
    differences = rng(7).normal(0.2, 1.0, size=60)
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=rng()
    ).pvalue
    assert sign_flip_test(differences, rng=rng(), num_resamples=20_000) == pytest.approx(
        theirs, abs=0.015
    )


def test_a_random_p_is_never_zero():
    assert sign_flip_test(np.ones(50), rng=rng(), num_resamples=999) == 1 / 1000


def test_the_exact_p_needs_room_for_every_pattern():
    assert sign_flip_test(np.ones(3), rng=rng(), num_resamples=8) == 2 / 8
    assert sign_flip_test(np.ones(3), rng=rng(), num_resamples=7) in {k / 8 for k in range(1, 9)}


def test_no_difference_and_no_data_are_told_apart():
    assert sign_flip_test(array(0.0, 0.0), rng=rng()) == 1.0
    assert sign_flip_test(array(NAN), rng=rng()) is None


def test_the_null_is_rejected_about_5_percent_of_the_time():
    draws = rng(13)
    rejected = sum(
        sign_flip_test(draws.normal(size=40), rng=draws, num_resamples=499) <= 0.05
        for _ in range(1000)
    )
    assert 0.03 <= rejected / 1000 <= 0.07


def test_mcnemar_is_the_binomial_of_the_differing_questions():
    a, b = array(1, 1, 1, 1, 0, 1, NAN), array(0, 0, 0, 1, 1, 0, 1)
    assert exact_mcnemar(a, b) == pytest.approx(2 * (1 + 5) / 2**5)
    assert exact_mcnemar(a, a) == 1.0
    assert exact_mcnemar(array(NAN), array(1)) is None
    with pytest.raises(DataError, match="0, 1 or NaN"):
        exact_mcnemar(array(0.5), array(1))


def test_points_are_win_tie_loss_or_missing():
    result = win_points(array(2, 1, 1, NAN, 1), array(1, 2, 1, 1, NAN))
    np.testing.assert_array_equal(result, [1.0, 0.0, 0.5, NAN, NAN])


@given(points)
@settings(max_examples=60, deadline=None)
def test_swapping_the_systems_mirrors_the_win_rate(sample):
    ours = win_rate(sample, rng=rng(), num_resamples=FEW)
    mirrored = win_rate(1 - sample, rng=rng(), num_resamples=FEW)
    assert ours.p_value == mirrored.p_value
    assert ours.num_scored == mirrored.num_scored
    if ours.value is not None:
        assert ours.value == pytest.approx(1 - mirrored.value)


def test_swapping_the_systems_mirrors_the_interval():
    sample = rng(4).choice(array(0.0, 0.5, 1.0), p=array(0.2, 0.1, 0.7), size=90)
    ours, mirrored = win_rate(sample, rng=rng()), win_rate(1 - sample, rng=rng())
    assert (ours.low, ours.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=0.01)


def test_a_win_rate_carries_interval_and_test():
    result = win_rate(array(*[1.0] * 8, *[0.0] * 2, NAN), rng=rng())
    assert result.value == 0.8
    assert result.low < 0.8 < result.high
    assert result.p_value == pytest.approx(stats.binomtest(8, 10).pvalue)
    assert (result.num_scored, result.num_total) == (10, 11)


def test_points_outside_zero_and_one_are_refused():
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        win_rate(array(0.0, 2.0), rng=rng())
    with pytest.raises(DataError, match="win_points"):
        win_rate(array(-0.5, 1.0), rng=rng())
