"""What each strategy promises."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slackdlm.sampling.strategies import (
    STRATEGIES,
    entropy,
    entropy_bound,
    low_confidence,
    margin,
    scheduled,
    threshold,
)

PROBS = [[0.5, 0.3, 0.2, 0.0], [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 1.0, 0.0]]
LOGITS = torch.tensor(PROBS).log()

scores = st.lists(st.floats(-5, 0, width=32), min_size=1, max_size=8).map(
    lambda values: sorted(values, reverse=True)
)


def test_low_confidence_is_the_probability_of_the_proposed_token():
    found = low_confidence(LOGITS, torch.tensor([1, 0, 2]))
    torch.testing.assert_close(found, torch.tensor([0.3, 0.25, 1.0]))


def test_entropy_is_minus_the_entropy_in_nats():
    by_hand = [sum(p * math.log(p) for p in row if p) for row in PROBS]
    torch.testing.assert_close(
        entropy(LOGITS, torch.zeros(3, dtype=torch.long)), torch.tensor(by_hand)
    )


def test_margin_is_the_lead_of_the_likeliest_token_whatever_was_drawn():
    for tokens in ([0, 0, 2], [1, 3, 0]):
        found = margin(LOGITS, torch.tensor(tokens))
        torch.testing.assert_close(found, torch.tensor([0.2, 0.0, 1.0]))


@given(scores, st.floats(-5, 0, width=32), st.integers(0, 3))
def test_threshold_takes_all_at_or_above_and_always_one(values, bound, absent):
    row = torch.tensor([values + [-math.inf] * absent])
    above = sum(v >= torch.tensor(bound).item() for v in values)
    assert threshold(row, torch.tensor([0]), bound).tolist() == [max(above, 1)]


@given(scores, st.floats(0.01, 20), st.integers(0, 3))
def test_entropy_bound_takes_the_most_cells_whose_joint_entropy_gap_is_bounded(
    values, bound, absent
):
    row = torch.tensor([values + [-math.inf] * absent], dtype=torch.float64)
    count = int(entropy_bound(row, torch.tensor([0]), bound))
    entropies = [-v for v in values]  # ascending
    assert 1 <= count <= len(values)
    gap = math.fsum(entropies[:count]) - max(entropies[:count])
    assert count == 1 or gap <= bound + 1e-9
    if count < len(values):
        longer = entropies[: count + 1]
        assert math.fsum(longer) - max(longer) > bound - 1e-9


@pytest.mark.parametrize("count", [threshold, entropy_bound])
def test_a_row_without_masked_cells_gets_none(count):
    row = torch.full((1, 4), -math.inf)
    assert count(row, torch.tensor([0]), 0.5).tolist() == [0]


def test_scheduled_looks_at_the_cells_due_alone():
    due = torch.tensor([2, 0])
    assert scheduled(torch.zeros(2, 4), due, 0.0) is due


def test_a_strategy_has_a_bound_or_a_schedule():
    assert {name for name, s in STRATEGIES.items() if s.bound is None} == {
        name for name, s in STRATEGIES.items() if s.number is scheduled
    }


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_every_strategy_commits_its_surest_cells_first(toy, name):
    from slackdlm.sampling.sampler import Sampler, SamplerConfig

    bound = {"threshold": 0.05, "entropy_bound": 4.0}.get(name)
    steps = None if bound else 6
    config = SamplerConfig(canvas_length=18, steps=steps, remasking=name, bound=bound, trace=True)
    answers = Sampler(toy, config).generate(["tell twice cat", "tell thrice red boat"])
    for answer in answers:
        sizes = [len(step) for step in answer.steps if step]
        assert sum(sizes) == 18
        assert sizes == [3] * 6 or bound is not None
        for step in answer.steps:
            found = [commit.confidence for commit in step]
            assert found == sorted(found, reverse=True)
            if name == "threshold" and len(step) > 1:
                assert found[-1] >= bound
            if name == "entropy_bound" and len(step) > 1:
                assert -sum(found[:-1]) <= bound + 1e-5
        assert answer.num_forwards == len(sizes)


def test_random_remasking_scores_are_uniform_draws_that_the_seed_decides(toy):
    from slackdlm.sampling.sampler import Sampler, SamplerConfig

    config = SamplerConfig(canvas_length=30, steps=1, remasking="random", trace=True)
    answers = Sampler(toy, config).generate(["tell twice cat"] * 20)
    draws = torch.tensor([c.confidence for a in answers for c in a.steps[0]])
    assert len(set(draws.tolist())) == 600
    assert abs(float(draws.mean()) - 0.5) < 4 * (1 / 12 / 600) ** 0.5
    places = {tuple(c.position for c in a.steps[0]) for a in answers}
    assert len(places) == 20
