import collections
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slackdlm.canvas import draw_noise, draw_num_slack, insert_slack
from slackdlm.collapse import collapse
from slackdlm.errors import ConfigError

SLACK = 9


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    target=st.lists(st.integers(0, 5), max_size=8),
    num_slack=st.integers(0, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_dropping_the_slack_gives_the_target_back(target: list[int], num_slack: int, seed: int):
    tokens = torch.tensor(target, dtype=torch.int32)
    canvas = insert_slack(tokens, num_slack, slack_id=SLACK, generator=seeded(seed))
    assert canvas.shape == (len(target) + num_slack,)
    assert canvas.dtype == tokens.dtype
    assert collapse(canvas.tolist(), slack_id=SLACK) == target


def test_every_arrangement_of_slack_is_equally_likely():
    target, generator, num_draws = torch.tensor([1, 1, 2]), seeded(1), 6000
    counts = collections.Counter(
        tuple((insert_slack(target, 2, slack_id=SLACK, generator=generator) == SLACK).tolist())
        for _ in range(num_draws)
    )
    arrangements = {
        tuple(i in places for i in range(5)) for places in itertools.combinations(range(5), 2)
    }
    expected = num_draws / len(arrangements)
    chi_squared = sum((counts[a] - expected) ** 2 / expected for a in arrangements)
    assert set(counts) == arrangements
    assert chi_squared < 21.7  # 99 % quantile with 9 degrees of freedom


def test_without_slack_the_canvas_is_the_target():
    target = torch.tensor([4, 4, 1])
    assert insert_slack(target, 0, slack_id=SLACK, generator=seeded()).tolist() == [4, 4, 1]


def test_negative_slack_is_refused():
    with pytest.raises(ConfigError, match="num_slack must be at least 0, got -1"):
        insert_slack(torch.tensor([1]), -1, slack_id=SLACK, generator=seeded())


def test_slack_inside_a_target_is_refused():
    with pytest.raises(ConfigError, match="already holds the slack id 9"):
        insert_slack(torch.tensor([1, SLACK]), 1, slack_id=SLACK, generator=seeded())


@given(
    target_length=st.integers(0, 50),
    low=st.floats(0, 2),
    width=st.floats(0, 2),
    room=st.integers(0, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_slack_budget_stays_inside_its_range_and_the_room(
    target_length: int, low: float, width: float, room: int, seed: int
):
    ratio = (low, low + width)
    num_slack = draw_num_slack(target_length, slack_ratio=ratio, room=room, generator=seeded(seed))
    assert 0 <= num_slack <= room
    assert num_slack <= round((low + width) * target_length)
    assert num_slack >= min(room, round(low * target_length))


def test_the_slack_budget_takes_its_extremes_from_a_uniform_draw():
    generator = seeded(2)
    draws = [
        draw_num_slack(100, slack_ratio=(0.0, 0.5), room=1000, generator=generator)
        for _ in range(2000)
    ]
    assert (min(draws), max(draws)) == (0, 50)
    assert sum(draws) / len(draws) == pytest.approx(25, abs=1.0)  # 3 standard errors


@pytest.mark.parametrize("ratio", [(0.0, 0.0), (0.2, 0.2), (0.0, 1.0)])
def test_arms_with_different_ratios_stay_in_step(ratio: tuple[float, float]):
    generator, other = seeded(3), seeded(3)
    draw_num_slack(10, slack_ratio=(0.0, 0.5), room=5, generator=generator)
    draw_num_slack(40, slack_ratio=ratio, room=0, generator=other)
    assert torch.equal(torch.rand(4, generator=generator), torch.rand(4, generator=other))


@pytest.mark.parametrize("ratio", [(-0.1, 0.5), (0.5, 0.4), (0.0, float("nan"))])
def test_an_impossible_slack_ratio_is_refused(ratio: tuple[float, float]):
    with pytest.raises(ConfigError, match=r"slack_ratio: expected 0 <= low <= high, got \["):
        draw_num_slack(10, slack_ratio=ratio, room=5, generator=seeded())


def test_a_target_longer_than_the_canvas_is_refused():
    with pytest.raises(ConfigError, match="3 tokens longer than the canvas; raise canvas_length"):
        draw_num_slack(10, slack_ratio=(0.0, 0.5), room=-3, generator=seeded())


@given(t=st.floats(0, 1), eps=st.floats(1e-3, 1), seed=st.integers(0, 2**32 - 1))
def test_the_masking_rate_is_linear_in_time(t: float, eps: float, seed: int):
    noise = draw_noise(7, eps=eps, generator=seeded(seed), t=t)
    assert noise.rate == pytest.approx((1 - eps) * t + eps)
    assert noise.masked.shape == (7,)


def test_at_time_one_everything_is_masked_and_at_rate_eps_almost_nothing():
    assert draw_noise(1000, eps=1e-3, generator=seeded(), t=1.0).masked.all()
    assert draw_noise(10000, eps=1e-3, generator=seeded(), t=0.0).masked.sum() < 40


def test_the_share_of_masked_positions_is_the_rate():
    noise = draw_noise(20000, eps=1e-3, generator=seeded(4), t=0.3)
    assert noise.masked.double().mean().item() == pytest.approx(noise.rate, abs=0.01)


def test_time_is_drawn_uniformly():
    generator = seeded(5)
    rates = [draw_noise(0, eps=1e-3, generator=generator).rate for _ in range(2000)]
    assert min(rates) >= 1e-3
    assert sum(rates) / len(rates) == pytest.approx(0.5, abs=0.02)


def test_a_given_time_and_a_drawn_one_stay_in_step():
    generator, other = seeded(6), seeded(6)
    draw_noise(5, eps=1e-3, generator=generator)
    draw_noise(5, eps=1e-3, generator=other, t=0.5)
    assert torch.equal(torch.rand(4, generator=generator), torch.rand(4, generator=other))


def test_a_seed_keeps_its_numbers_so_that_an_old_run_can_go_on():
    generator = seeded(7)
    ratio = (0.0, 1.0)
    assert draw_num_slack(1000, slack_ratio=ratio, room=1000, generator=generator) == 279
    canvas = insert_slack(torch.arange(5), 3, slack_id=SLACK, generator=generator)
    assert canvas.tolist() == [SLACK, 0, 1, 2, SLACK, 3, SLACK, 4]
    noise = draw_noise(8, eps=1e-3, generator=generator)
    assert noise.rate == pytest.approx(0.8103369183337097, rel=1e-12)
    assert noise.masked.tolist() == [True, True, False, True, False, True, True, True]


@pytest.mark.parametrize("eps", [0.0, -1.0, 1.5, float("nan")])
def test_an_impossible_eps_is_refused(eps: float):
    with pytest.raises(ConfigError, match=r"eps must lie in \(0, 1\]"):
        draw_noise(3, eps=eps, generator=seeded())


@pytest.mark.parametrize("t", [-0.1, 1.1, float("nan")])
def test_an_impossible_time_is_refused(t: float):
    with pytest.raises(ConfigError, match=r"t must lie in \[0, 1\]"):
        draw_noise(3, eps=1e-3, generator=seeded(), t=t)
