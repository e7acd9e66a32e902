"""Means over questions and their intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from score_arrays import FEW, NAN, array, rng

from slackdlm.errors import ConfigError, DataError
from slackdlm.statistics import (
    Estimate,
    mean_interval,
    ratio_interval,
    sign_flip_test,
    win_rate,
)
from slackdlm.statistics.bootstrap import widened

numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))
scores = st.lists(st.one_of(numbers, st.just(NAN)), max_size=12).map(lambda xs: array(*xs))


def test_the_interval_is_scipys_bca():
    sample = rng(3).gamma(1.0, size=40)
    ours = mean_interval(sample, rng=rng(), num_resamples=20_000)
    theirs = stats.bootstrap((sample,), np.mean, n_resamples=20_000, rng=rng(1)).confidence_interval
    assert ours.value == pytest.approx(sample.mean())
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.02)


def test_bca_leans_towards_the_long_tail():
    result = mean_interval(rng(3).gamma(0.5, size=60), rng=rng())
    assert result.high - result.value > 1.1 * (result.value - result.low)


def test_no_score_gives_no_number():
    assert mean_interval(array(), rng=rng()) == Estimate(None, None, None, 0, 0)
    assert mean_interval(array(NAN, NAN), rng=rng()) == Estimate(None, None, None, 0, 2)


def test_one_question_gives_a_value_and_no_interval():
    assert mean_interval(array(NAN, 0.25), rng=rng()) == Estimate(0.25, None, None, 1, 2)


@pytest.mark.parametrize("score", [0.0, 1.0, 0.1, -3e-200, 1e200])
def test_equal_scores_give_an_interval_of_zero_width(score):
    result = mean_interval(array(*[score] * 7, NAN), rng=rng())
    assert result.low == result.value == result.high == pytest.approx(score)
    assert (result.num_scored, result.num_total) == (7, 8)


@pytest.mark.parametrize(("size", "score"), [(2, 1.0), (7, 0.0), (32, 0.5), (500, 1.0)])
def test_scores_that_agree_are_not_certain_where_bounds_are_known(size, score):
    """Of a population whose share q scores otherwise, at a bound, all agree with probability (1 - q)^n."""
    result = mean_interval(array(*[score] * size), rng=rng(), bounds=(0.0, 1.0))
    assert result.value == score
    for end, bound in ((result.low, 0.0), (result.high, 1.0)):
        if bound == score:
            assert end == score
        else:
            share = (end - score) / (bound - score)
            assert (1 - share) ** size == pytest.approx(0.05)
    ratio = ratio_interval(
        array(*[2 * score] * size), array(*[2.0] * size), rng=rng(), bounds=(0.0, 1.0)
    )
    assert (ratio.low, ratio.high) == pytest.approx((result.low, result.high))
    rate = win_rate(array(*[score] * size), rng=rng())
    assert (rate.low, rate.high) == (result.low, result.high)


@pytest.mark.parametrize(("size", "rate"), [(8, 0.9), (32, 0.9), (32, 0.98), (100, 0.99)])
def test_a_win_rate_near_one_is_covered(size, rate):
    """Every number of wins that can come, weighed by its probability; zero width covered 0.43 to 0.96."""
    coverage = 0.0
    for wins in range(size + 1):
        chance = stats.binom.pmf(wins, size, rate)
        if chance > 1e-4:
            result = win_rate(
                array(*[1.0] * wins, *[0.0] * (size - wins)), rng=rng(), num_resamples=FEW
            )
            coverage += chance * (result.low <= rate <= result.high)
    assert coverage > 0.93


def test_no_end_lies_beyond_a_score():
    """Rounding gave -5.6e-17 here."""
    result = win_rate(array(0, 0, 0, 0.5, 1), rng=rng(), num_resamples=200)
    assert result.low == 0.0


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1.0, 1e9, 1e100])
def test_the_interval_scales_with_the_scores(scale):
    sample = rng(5).normal(size=15)
    one = mean_interval(sample, rng=rng(), num_resamples=FEW)
    scaled = mean_interval(sample * scale, rng=rng(), num_resamples=FEW)
    assert np.array([scaled.low, scaled.high]) / scale == pytest.approx(
        [one.low, one.high], rel=1e-6
    )


def test_a_wider_confidence_gives_a_wider_interval():
    sample = rng(5).normal(size=30)
    narrow = mean_interval(sample, rng=rng(), confidence=0.8)
    wide = mean_interval(sample, rng=rng(), confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@given(scores, st.randoms(use_true_random=False), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_the_order_of_questions_changes_nothing(sample, random, seed):
    shuffled = sample.copy()
    random.shuffle(shuffled)
    for statistic in (mean_interval, sign_flip_test):
        assert statistic(sample, rng=rng(seed), num_resamples=FEW) == statistic(
            shuffled, rng=rng(seed), num_resamples=FEW
        )


@given(scores)
@settings(max_examples=60, deadline=None)
def test_missing_scores_never_leak_into_an_interval(sample):
    result = mean_interval(sample, rng=rng(), num_resamples=FEW)
    scored = sample[~np.isnan(sample)]
    assert (result.num_scored, result.num_total) == (scored.size, sample.size)
    numbers = [x for x in (result.value, result.low, result.high) if x is not None]
    assert np.isfinite(numbers).all()
    assert (result.value is None) == (scored.size == 0)
    assert (result.low is None) == (result.high is None) == (scored.size < 2)
    if scored.size >= 2:
        assert scored.min() - 1e-6 <= result.low <= result.high <= scored.max() + 1e-6


def test_the_95_percent_interval_covers_about_95_percent():
    draws = rng(11)
    covered = 0
    for _ in range(600):
        result = mean_interval(draws.gamma(2.0, size=60), rng=draws, num_resamples=800)
        covered += result.low <= 2.0 <= result.high
    assert 0.92 <= covered / 600 <= 0.98


def test_the_seed_decides_the_interval():
    sample = rng(5).normal(size=30)
    assert mean_interval(sample, rng=rng(1)) == mean_interval(sample, rng=rng(1))
    assert mean_interval(sample, rng=rng(1)) != mean_interval(sample, rng=rng(2))


def test_infinite_scores_are_refused():
    with pytest.raises(DataError, match="infinite"):
        mean_interval(array(1.0, np.inf), rng=rng())


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="at least 100"):
        mean_interval(array(1.0, 2.0), rng=rng(), num_resamples=99)
    with pytest.raises(ConfigError, match="at least 1,"):
        sign_flip_test(array(1.0, 2.0), rng=rng(), num_resamples=0)
    with pytest.raises(ConfigError, match="confidence"):
        mean_interval(array(1.0, 2.0), rng=rng(), confidence=95.0)


def test_scores_that_agree_on_a_scale_open_above_have_width_below_alone():
    result = mean_interval(np.full(16, 2.0), rng=rng(), bounds=(0.0, np.inf))
    assert result.low is not None
    assert result.low < 2.0 == result.high


def test_few_questions_widen_the_interval_as_t_does():
    assert widened(0.95, 10_000) == pytest.approx(0.95, abs=1e-4)
    assert stats.norm.ppf((1 + widened(0.95, 32)) / 2) == pytest.approx(stats.t.ppf(0.975, 31))
    assert widened(0.95, 2) == 1 - 1e-6
    result = mean_interval(array(1.0, 2.0), rng=rng(), num_resamples=FEW)
    assert (result.low, result.high) == (1.0, 2.0)


def test_a_ratio_of_equal_weights_is_the_mean():
    scores = rng(1).random(60)
    mean = mean_interval(scores, rng=rng(2))
    ratio = ratio_interval(2 * scores, np.full(60, 2.0), rng=rng(2))
    assert ratio.value == pytest.approx(mean.value)
    assert (ratio.low, ratio.high) == pytest.approx((mean.low, mean.high), abs=0.005)
    assert ratio_interval(array(NAN), array(1), rng=rng()).value is None
    assert ratio_interval(array(1, 0), array(2, 0), rng=rng()).low is None
    assert ratio_interval(array(1, 2), array(2, 4), rng=rng()).low == 0.5
    weightless = ratio_interval(array(1, 2, 0), array(2, 4, 0), rng=rng())
    assert (weightless.value, weightless.num_scored, weightless.num_total) == (0.5, 2, 3)
