import numpy as np
import pytest
from scipy import stats

from slackdlm.errors import ConfigError
from slackdlm.statistics import minimum_detectable, questions_needed


def test_known_minimum_effects():
    # WildBench's paired spread of 1.61 on 1,024 tasks; a win rate's of 0.4 on 500 questions.
    assert 20 * minimum_detectable(1.61, 1024) == pytest.approx(2.8, abs=0.05)
    assert minimum_detectable(0.4, 500) == pytest.approx(0.050, abs=0.001)
    assert minimum_detectable(0.0, 10) == 0.0


def test_the_effect_found_is_detected_as_often_as_promised():
    result = minimum_detectable(1.0, 40)
    draws = np.random.default_rng(0).normal(result, 1.0, size=(4000, 40))
    rejected = stats.ttest_1samp(draws, 0.0, axis=1).pvalue <= 0.05
    assert rejected.mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("effect", [0.0007, 0.01, 0.05, 0.3, 5.0])
def test_the_questions_needed_are_just_enough(effect):
    size = questions_needed(0.4, effect)
    assert minimum_detectable(0.4, size) <= effect
    assert size == 2 or minimum_detectable(0.4, size - 1) > effect


def test_a_level_that_no_double_tells_from_none_is_a_level():
    assert minimum_detectable(1.0, 50, alpha=1e-17) < minimum_detectable(1.0, 50, alpha=1e-18) < 4
    assert questions_needed(1.0, 0.5, alpha=1e-18) < 1000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minimum_detectable(-1.0, 10), "spread"),
        (lambda: minimum_detectable(1.0, 1), "num_questions"),
        (lambda: minimum_detectable(1.0, 10, power=1.0), "power"),
        (lambda: minimum_detectable(1.0, 10, alpha=0.0), "alpha"),
        (lambda: minimum_detectable(1.0, 10, power=0.01), "at least alpha"),
        (lambda: questions_needed(1.0, 0.0), "effect"),
        (lambda: questions_needed(1.0, float("nan")), "effect"),
    ],
)
def test_impossible_plans_are_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
