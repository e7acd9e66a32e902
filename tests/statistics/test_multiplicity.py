"""p-values of a family."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_arrays import NAN

from slackdlm.errors import DataError
from slackdlm.statistics import (
    benjamini_hochberg,
    holm,
)


def test_benjamini_hochberg_by_hand():
    result = benjamini_hochberg([0.01, 0.04, 0.03, 0.005, 0.5])
    assert result == pytest.approx([0.025, 0.05, 0.05, 0.025, 0.5])


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
