from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from slackdlm.errors import ConfigError, DataError
from slackdlm.statistics import (
    Estimate,
    average_over_seeds,
    benjamini_hochberg,
    dose_trend,
    exact_mcnemar,
    holm,
    mean_interval,
    over_training_runs,
    ratio_interval,
    sign_flip_test,
    win_points,
    win_rate,
)
from slackdlm.statistics.bootstrap import widened

NAN = float("nan")
FEW = 200
"""Resamples where the exact number does not matter."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))
scores = st.lists(st.one_of(numbers, st.just(NAN)), max_size=12).map(lambda xs: array(*xs))
points = st.lists(st.sampled_from([0.0, 0.5, 1.0, NAN]), max_size=12).map(lambda xs: array(*xs))


# Intervals


def test_the_interval_is_scipys_bca():
    sample = rng(3).gamma(1.0, size=40)
    ours = mean_interval(sample, rng=rng(), num_resamples=20_000)
    theirs = stats.bootstrap((sample,), np.mean, n_resamples=20_000, rng=rng(1)).confidence_interval
    assert ours.value == pytest.approx(sample.mean())
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.02)


def test_bca_leans_towards_the_long_tail():
    found = mean_interval(rng(3).gamma(0.5, size=60), rng=rng())
    assert found.high - found.value > 1.1 * (found.value - found.low)


def test_no_score_gives_no_number():
    assert mean_interval(array(), rng=rng()) == Estimate(None, None, None, 0, 0)
    assert mean_interval(array(NAN, NAN), rng=rng()) == Estimate(None, None, None, 0, 2)


def test_one_question_gives_a_value_and_no_interval():
    assert mean_interval(array(NAN, 0.25), rng=rng()) == Estimate(0.25, None, None, 1, 2)


@pytest.mark.parametrize("score", [0.0, 1.0, 0.1, -3e-200, 1e200])
def test_equal_scores_give_an_interval_of_zero_width(score):
    found = mean_interval(array(*[score] * 7, NAN), rng=rng())
    assert found.low == found.value == found.high == pytest.approx(score)
    assert (found.num_scored, found.num_total) == (7, 8)


@pytest.mark.parametrize(("size", "score"), [(2, 1.0), (7, 0.0), (32, 0.5), (500, 1.0)])
def test_scores_that_agree_are_not_certain_where_bounds_are_known(size, score):
    """Of a population whose share q scores otherwise, at a bound, all agree with probability (1 - q)^n."""
    found = mean_interval(array(*[score] * size), rng=rng(), bounds=(0.0, 1.0))
    assert found.value == score
    for end, bound in ((found.low, 0.0), (found.high, 1.0)):
        if bound == score:
            assert end == score
        else:
            share = (end - score) / (bound - score)
            assert (1 - share) ** size == pytest.approx(0.05)
    ratio = ratio_interval(
        array(*[2 * score] * size), array(*[2.0] * size), rng=rng(), bounds=(0.0, 1.0)
    )
    assert (ratio.low, ratio.high) == pytest.approx((found.low, found.high))
    rate = win_rate(array(*[score] * size), rng=rng())
    assert (rate.low, rate.high) == (found.low, found.high)


@pytest.mark.parametrize(("size", "rate"), [(8, 0.9), (32, 0.9), (32, 0.98), (100, 0.99)])
def test_a_win_rate_near_one_is_covered(size, rate):
    """Every number of wins that can come, weighed by its probability; zero width covered 0.43 to 0.96."""
    coverage = 0.0
    for wins in range(size + 1):
        chance = stats.binom.pmf(wins, size, rate)
        if chance > 1e-4:
            found = win_rate(
                array(*[1.0] * wins, *[0.0] * (size - wins)), rng=rng(), num_resamples=FEW
            )
            coverage += chance * (found.low <= rate <= found.high)
    assert coverage > 0.93


def test_no_end_lies_beyond_a_score():
    """Rounding gave -5.6e-17 here."""
    found = win_rate(array(0, 0, 0, 0.5, 1), rng=rng(), num_resamples=200)
    assert found.low == 0.0


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
    found = mean_interval(sample, rng=rng(), num_resamples=FEW)
    scored = sample[~np.isnan(sample)]
    assert (found.num_scored, found.num_total) == (scored.size, sample.size)
    numbers = [x for x in (found.value, found.low, found.high) if x is not None]
    assert np.isfinite(numbers).all()
    assert (found.value is None) == (scored.size == 0)
    assert (found.low is None) == (found.high is None) == (scored.size < 2)
    if scored.size >= 2:
        assert scored.min() - 1e-6 <= found.low <= found.high <= scored.max() + 1e-6


def test_the_95_percent_interval_covers_about_95_percent():
    draws = rng(11)
    covered = 0
    for _ in range(600):
        found = mean_interval(draws.gamma(2.0, size=60), rng=draws, num_resamples=800)
        covered += found.low <= 2.0 <= found.high
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


# Sign flips


def enumerated_p(differences) -> float:
    observed = abs(sum(differences))
    sums = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True)))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    return sum(total >= observed - 1e-12 for total in sums) / len(sums)


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


# Win rates


def test_points_are_win_tie_loss_or_missing():
    found = win_points(array(2, 1, 1, NAN, 1), array(1, 2, 1, 1, NAN))
    np.testing.assert_array_equal(found, [1.0, 0.0, 0.5, NAN, NAN])


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
    found = win_rate(array(*[1.0] * 8, *[0.0] * 2, NAN), rng=rng())
    assert found.value == 0.8
    assert found.low < 0.8 < found.high
    assert found.p_value == pytest.approx(stats.binomtest(8, 10).pvalue)
    assert (found.num_scored, found.num_total) == (10, 11)


def test_points_outside_zero_and_one_are_refused():
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        win_rate(array(0.0, 2.0), rng=rng())
    with pytest.raises(DataError, match="win_points"):
        win_rate(array(-0.5, 1.0), rng=rng())


# Several seeds


def test_decoding_seeds_are_averaged_inside_the_question():
    found = average_over_seeds(np.array([[1.0, NAN, NAN], [0.0, 3.0, NAN]]))
    np.testing.assert_array_equal(found, [0.5, 3.0, NAN])


def test_training_runs_get_one_mean_and_two_intervals():
    table = rng(1).normal(0, 0.3, (3, 80)) + array(0.2, 0.5, 0.8)[:, None]
    found = over_training_runs(table, rng=rng())
    assert found.these_runs.value == found.new_runs.value == pytest.approx(table.mean())
    assert found.per_run == pytest.approx(tuple(table.mean(axis=1)))
    assert found.new_runs.low < found.these_runs.low < found.these_runs.high < found.new_runs.high


def test_training_runs_match_the_formula_written_out():
    table = np.array([[1.0, 2.0, 4.0], [2.0, 2.0, 7.0]])
    by_run = np.std([7 / 3, 11 / 3], ddof=1) / np.sqrt(2)
    by_question = np.std([1.5, 2.0, 5.5], ddof=1) / np.sqrt(3)
    error = np.hypot(by_run, by_question)
    degrees = error**4 / (by_run**4 / 1 + by_question**4 / 2)
    found = over_training_runs(table, rng=rng(), confidence=0.9).new_runs
    assert found.high - 3.0 == pytest.approx(stats.t.ppf(0.95, degrees) * error)
    assert 3.0 - found.low == pytest.approx(found.high - 3.0)


def test_the_interval_for_new_runs_covers_at_three_runs():
    draws = rng(17)
    covered = 0
    for _ in range(500):
        runs, cells = draws.normal(0, 0.1, (3, 1)), draws.normal(0, 0.3, (3, 60))
        table = runs + cells + draws.normal(0, 0.3, 60)
        found = over_training_runs(table, rng=draws, num_resamples=100).new_runs
        covered += found.low <= 0 <= found.high
    assert 0.92 <= covered / 500 <= 0.98


def test_one_training_run_says_nothing_about_new_ones():
    found = over_training_runs(np.array([[0.0, 1.0], [NAN, NAN]]), rng=rng(), num_resamples=FEW)
    assert found.per_run == (0.5, None)
    assert found.these_runs.low is not None
    assert found.new_runs == Estimate(0.5, None, None, 2, 2)


@pytest.mark.parametrize("num_runs", [1, 3])
def test_training_runs_whose_questions_all_agree_have_an_exact_interval(num_runs: int):
    table = np.full((num_runs, 16), 0.5)
    found = over_training_runs(table, rng=rng(), bounds=(0.0, 1.0))
    expected = mean_interval(table[0], rng=rng(), bounds=(0.0, 1.0))
    assert found.these_runs == expected
    assert 0.4 < expected.low < 0.5 < expected.high < 0.6
    ends = (None, None) if num_runs == 1 else (expected.low, expected.high)
    assert (found.new_runs.low, found.new_runs.high) == ends


def test_scores_that_agree_on_a_scale_open_above_have_width_below_alone():
    found = mean_interval(np.full(16, 2.0), rng=rng(), bounds=(0.0, np.inf))
    assert found.low is not None
    assert found.low < 2.0 == found.high


def test_training_runs_that_agree_exactly_give_zero_width():
    found = over_training_runs(np.ones((3, 4)), rng=rng(), num_resamples=FEW)
    assert found.new_runs == Estimate(1.0, 1.0, 1.0, 4, 4)


def test_unscored_training_runs_give_no_number():
    found = over_training_runs(np.full((2, 3), NAN), rng=rng())
    assert found.per_run == (None, None)
    assert found.these_runs == found.new_runs == Estimate(None, None, None, 0, 3)


# Dose and response


def test_the_slope_is_least_squares_per_question():
    doses = array(0.0, 0.1, 0.3)
    table = rng(1).normal(size=(3, 6))
    slopes = [stats.linregress(doses, column).slope for column in table.T]
    found = dose_trend(table, doses, rng=rng(), num_resamples=FEW)
    assert found.value == pytest.approx(np.mean(slopes))
    assert found.p_value == pytest.approx(enumerated_p(slopes))


def test_a_missing_dose_leaves_the_rest_of_the_question():
    doses = array(0.0, 0.1, 0.2)
    table = np.array([[1.0, 1.0, NAN], [NAN, 0.5, NAN], [0.0, 0.0, 1.0]])
    found = dose_trend(table, doses, rng=rng(), num_resamples=FEW)
    assert found.value == pytest.approx(-5.0)
    assert (found.num_scored, found.num_total) == (2, 3)


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
    found = dose_trend(np.full((doses.size, 16), level), doses, rng=rng(), num_resamples=FEW)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_flat_scores_are_not_certain_where_their_range_is_known():
    doses, flat = array(0.0, 0.1, 0.3), np.full((3, 8), 0.5)
    flat[2, 0] = NAN  # its two doses, 0.1 apart, allow the steepest slope: 1 / 0.1
    found = dose_trend(flat, doses, rng=rng(), bounds=(0.0, 1.0))
    half = 10 * (1 - 0.05 ** (1 / 8))
    assert (found.value, found.low, found.high) == pytest.approx((0.0, -half, half))
    whole = dose_trend(flat[:, 1:], doses, rng=rng(), bounds=(0.0, 2.0))
    steepest = stats.linregress(doses, [0.0, 0.0, 2.0]).slope
    assert whole.high == pytest.approx(steepest * (1 - 0.05 ** (1 / 7)))
    assert dose_trend(flat, doses, rng=rng()).high == 0.0


def test_scores_that_fall_and_rise_as_much_are_no_trend():
    table = np.tile(array(1 / 3, 0.1, 1 / 3)[:, None], (1, 16))
    found = dose_trend(table, array(0.1, 0.2, 0.3), rng=rng(), num_resamples=FEW)
    assert (found.value, found.p_value) == (0, 1)


def test_equal_doses_are_refused():
    with pytest.raises(DataError, match="distinct"):
        dose_trend(np.ones((2, 3)), array(0.1, 0.1), rng=rng())


# Many tests


def test_benjamini_hochberg_by_hand():
    found = benjamini_hochberg([0.01, 0.04, 0.03, 0.005, 0.5])
    assert found == pytest.approx([0.025, 0.05, 0.05, 0.025, 0.5])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


@pytest.mark.parametrize("adjust", [benjamini_hochberg, holm])
def test_missing_p_values_stay_missing_and_do_not_count(adjust):
    with_gaps = adjust([None, 0.01, NAN, 0.04])
    assert with_gaps[0] is None
    assert with_gaps[2] is None
    assert [with_gaps[1], with_gaps[3]] == adjust([0.01, 0.04])
    assert adjust([]) == []
    assert adjust([None]) == [None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_adjusting_keeps_order_and_never_lowers(p_values, random):
    for adjust in (benjamini_hochberg, holm):
        adjusted = dict(zip(p_values, adjust(p_values), strict=True))
        ranked = [adjusted[p] for p in sorted(adjusted)]
        assert ranked == sorted(ranked)
        assert all(p <= q * (1 + 1e-12) <= 1 + 1e-12 for p, q in adjusted.items())
        shuffled = p_values.copy()
        random.shuffle(shuffled)
        assert adjust(shuffled) == [adjusted[p] for p in shuffled]
    pairs = zip(benjamini_hochberg(p_values), holm(p_values), strict=True)
    assert all(bh <= strict * (1 + 1e-12) for bh, strict in pairs)


@pytest.mark.parametrize("adjust", [benjamini_hochberg, holm])
def test_a_p_value_out_of_range_is_refused(adjust):
    with pytest.raises(DataError, match=r"p_values\[1\]"):
        adjust([0.5, 1.5])


def test_few_questions_widen_the_interval_as_t_does():
    assert widened(0.95, 10_000) == pytest.approx(0.95, abs=1e-4)
    assert stats.norm.ppf((1 + widened(0.95, 32)) / 2) == pytest.approx(stats.t.ppf(0.975, 31))
    assert widened(0.95, 2) == 1 - 1e-6
    found = mean_interval(array(1.0, 2.0), rng=rng(), num_resamples=FEW)
    assert (found.low, found.high) == (1.0, 2.0)


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


# McNemar


def test_mcnemar_is_the_binomial_of_the_differing_questions():
    a, b = array(1, 1, 1, 1, 0, 1, NAN), array(0, 0, 0, 1, 1, 0, 1)
    assert exact_mcnemar(a, b) == pytest.approx(2 * (1 + 5) / 2**5)
    assert exact_mcnemar(a, a) == 1.0
    assert exact_mcnemar(array(NAN), array(1)) is None
    with pytest.raises(DataError, match="0, 1 or NaN"):
        exact_mcnemar(array(0.5), array(1))


# Ranges


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
    found = over_training_runs(table, rng=rng(), num_resamples=200, bounds=(0, 1))
    assert found.new_runs == found.these_runs
    assert found.new_runs.low == pytest.approx(level * 0.05 ** (1 / 8))


def test_one_question_says_nothing_about_new_runs():
    found = over_training_runs(array(0.25, 0.75)[:, None], rng=rng(), num_resamples=200)
    assert (found.new_runs.value, found.new_runs.low, found.new_runs.high) == (0.5, None, None)
