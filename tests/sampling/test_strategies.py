"""What each strategy promises."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slackdlm.sampling.config import BOUNDS
from slackdlm.sampling.sampler import Sampler, SamplerConfig
from slackdlm.sampling.strategies import (
    STRATEGIES,
    entropy,
    entropy_bound,
    gumbel_argmax,
    low_confidence,
    margin,
    scheduled,
    spaced,
    threshold,
)

PROBS = [[0.5, 0.3, 0.2, 0.0], [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 1.0, 0.0]]
LOGITS = torch.tensor(PROBS).log()

scores = st.lists(st.floats(-5, 0, width=32), min_size=1, max_size=8).map(
    lambda values: sorted(values, reverse=True)
)


def test_low_confidence_is_the_probability_of_the_proposed_token():
    result = low_confidence(LOGITS, torch.tensor([1, 0, 2]))
    torch.testing.assert_close(result, torch.tensor([0.3, 0.25, 1.0]))


def test_entropy_is_minus_the_entropy_in_nats():
    by_hand = [sum(p * math.log(p) for p in row if p) for row in PROBS]
    torch.testing.assert_close(
        entropy(LOGITS, torch.zeros(3, dtype=torch.long)), torch.tensor(by_hand)
    )


def test_margin_is_the_lead_of_the_likeliest_token_whatever_was_drawn():
    for tokens in ([0, 0, 2], [1, 3, 0]):
        result = margin(LOGITS, torch.tensor(tokens))
        torch.testing.assert_close(result, torch.tensor([0.2, 0.0, 1.0]))


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
    assert STRATEGIES.keys() - BOUNDS == {
        name for name, s in STRATEGIES.items() if s.number is scheduled
    }


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_every_strategy_commits_its_surest_cells_first(toy, name):
    bound = {"threshold": 0.05, "entropy_bound": 4.0}.get(name)
    steps = None if bound else 6
    config = SamplerConfig(canvas_length=18, steps=steps, remasking=name, bound=bound, trace=True)
    answers = Sampler(toy, config).generate(["tell twice cat", "tell thrice red boat"])
    for answer in answers:
        sizes = [len(step) for step in answer.steps if step]
        assert sum(sizes) == 18
        assert sizes == [3] * 6 or bound is not None
        for step in answer.steps:
            result = [commit.confidence for commit in step]
            assert result == sorted(result, reverse=True)
            if name == "threshold" and len(step) > 1:
                assert result[-1] >= bound
            if name == "entropy_bound" and len(step) > 1:
                assert -sum(result[:-1]) <= bound + 1e-5
        assert answer.num_forwards == len(sizes)


def test_random_remasking_scores_are_uniform_draws_that_the_seed_decides(toy):
    config = SamplerConfig(canvas_length=30, steps=1, remasking="random", trace=True)
    answers = Sampler(toy, config).generate(["tell twice cat"] * 20)
    draws = torch.tensor([c.confidence for a in answers for c in a.steps[0]])
    assert len(set(draws.tolist())) == 600
    assert abs(float(draws.mean()) - 0.5) < 4 * (1 / 12 / 600) ** 0.5
    places = {tuple(c.position for c in a.steps[0]) for a in answers}
    assert len(places) == 20


def spaced_by_hand(row: list[float], num_cells: int, spacing: int) -> list[int]:
    """Twice down the list of scores: those far from all taken before, then the rest; missing cells last."""
    ranked = sorted(range(len(row)), key=lambda place: (-row[place], place))
    masked = [place for place in ranked if row[place] > -math.inf]
    far: list[int] = []
    for place in masked:
        if all(abs(place - other) >= spacing for other in far):
            far.append(place)
    near = [place for place in masked if place not in far]
    missing = [place for place in ranked if row[place] == -math.inf]
    return [*far, *near, *missing][:num_cells]


@given(
    st.lists(
        st.lists(st.sampled_from([-math.inf, -3e38, 0.0, 0.1, 0.5, 1.0]), min_size=9, max_size=9),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, 9),
    st.integers(1, 10),
)
def test_spaced_takes_the_surest_far_from_each_other_then_the_rest(rows, num_cells, spacing):
    result = spaced(torch.tensor(rows), num_cells, spacing=spacing)
    assert result.tolist() == [spaced_by_hand(row, num_cells, spacing) for row in rows]


def test_a_spacing_of_one_is_the_order_of_the_scores():
    scores = torch.rand(3, 20, generator=torch.Generator().manual_seed(0))
    expected = scores.sort(dim=1, descending=True).indices
    assert torch.equal(spaced(scores, 20, spacing=1), expected)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_spaced_cells_of_fewer_are_those_taken_first_of_more(seed, spacing):
    scores = torch.rand(2, 12, generator=torch.Generator().manual_seed(seed))
    whole = spaced(scores, 12, spacing=spacing)
    assert torch.equal(whole.sort(dim=1).values, torch.arange(12).expand(2, 12))
    assert torch.equal(spaced(scores, 5, spacing=spacing), whole[:, :5])


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([0.0, 0.01, 1.0, 5.0, 100.0, 1e4]),
    temperature=st.sampled_from([1e-6, 0.1, 1.0, 3.0, 100.0]),
    rows=st.integers(1, 4),
    size=st.integers(1, 400),
)
def test_the_gumbel_argmax_is_that_of_its_formula(
    seed: int, scale: float, temperature: float, rows: int, size: int
) -> None:
    rng = np.random.Generator(np.random.PCG64(seed))
    logits = (scale * rng.standard_normal((rows, size))).astype(np.float32)
    logits[rng.random((rows, size)) < 0.1] = -np.inf
    logits[:, rng.integers(size)] = 0.0
    uniforms = rng.random((rows, size))
    uniforms[rng.random((rows, size)) < 0.05] = 0.0
    uniforms[rng.random((rows, size)) < 0.05] = 1 - 2.0**-53
    noise = -np.log(-np.log(np.maximum(uniforms, np.finfo(np.float64).tiny)))
    expected = (logits.astype(np.float64) + temperature * noise).argmax(axis=1)
    result = gumbel_argmax(
        torch.from_numpy(logits), torch.from_numpy(uniforms), temperature=temperature
    )
    assert result.tolist() == expected.tolist()


def test_a_row_that_is_not_a_number_keeps_a_token() -> None:
    logits = torch.tensor([[torch.nan] * 30, [0.0] * 29 + [50.0]])
    uniforms = torch.full((2, 30), 0.5, dtype=torch.float64)
    assert gumbel_argmax(logits, uniforms, temperature=1.0).tolist() == [0, 29]


def test_an_unlikely_token_wins_by_its_noise_and_the_first_of_two_equal_ones_wins() -> None:
    logits = torch.full((2, 100), -50.0)
    uniforms = torch.full((2, 100), 0.5, dtype=torch.float64)
    logits[0, [40, 60]] = torch.tensor([0.0, -4.0])
    uniforms[0, 60] = 1 - math.exp(-4.5)  # its noise is 4.5, that of 40 is 0.37
    logits[1, [7, 3]] = 2.0
    assert gumbel_argmax(logits, uniforms, temperature=1.0).tolist() == [60, 3]
