"""Alignments drawn from the lattice, against the enumeration of all of them."""

import math

import oracles
import pytest
import torch
from hypothesis import given, settings
from problems import (
    IDS,
    MASK_ID,
    SLACK_ID,
    Problem,
    columns_of,
    draw_long_columns,
    map_columns,
    problems,
)
from torch import Tensor

from slackdlm.lattice.band import Columns
from slackdlm.lattice.paths import Paths, best_path, sample_path

NUM_DRAWS = 3000


def filled(problem: Problem, paths: Paths, b: int) -> tuple[int, ...]:
    """The canvas of one sample as its alignment fills it."""
    target = iter(problem.targets[b].tolist())
    is_slack = paths.is_slack[b, : int(problem.canvas_lengths[b])].tolist()
    return tuple(SLACK_ID if slack else next(target) for slack in is_slack)


def probabilities(problem: Problem, b: int) -> dict[tuple[int, ...], float]:
    """Posterior probability of every alignment of one sample, by enumeration."""
    logits, canvas, target = problem.sample(b)
    paths = oracles.paths_to(logits, canvas, target, IDS["mask_id"], IDS["slack_id"], "slack")
    total = math.fsum(p for _, p in paths)
    return {path: p / total for path, p in paths if p > 0} if total > 0 else {}


def draw_uniforms(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@settings(max_examples=25)
@given(problem=problems(contradiction=0.2))
def test_alignments_are_drawn_with_their_posterior_probability(problem: Problem):
    columns = columns_of(problem)
    repeated = map_columns(lambda tensor: tensor.repeat_interleave(NUM_DRAWS, dim=0), columns)
    paths = sample_path(repeated, uniforms=draw_uniforms(*repeated.slack.shape))
    for b in range(len(problem.canvas)):
        expected = probabilities(problem, b)
        drawn = slice(b * NUM_DRAWS, (b + 1) * NUM_DRAWS)
        own = Paths(paths.is_slack[drawn], paths.exists[drawn])
        assert own.exists.all() == own.exists.any() == bool(expected)
        if not expected:
            assert not own.is_slack.any()
            continue
        repeats = Problem(*(tensor[b].expand(NUM_DRAWS, *tensor[b].shape) for tensor in problem))
        counts: dict[tuple[int, ...], int] = {}
        for n in range(NUM_DRAWS):
            path = filled(repeats, own, n)
            counts[path] = counts.get(path, 0) + 1
        assert counts.keys() <= expected.keys()
        for path, p in expected.items():
            # Six standard deviations, and one draw for probabilities below 1 in NUM_DRAWS.
            margin = 6 * math.sqrt(p * (1 - p) / NUM_DRAWS) + 1 / NUM_DRAWS
            assert counts.get(path, 0) / NUM_DRAWS == pytest.approx(p, abs=margin)


@settings(max_examples=200)
@given(problem=problems(contradiction=0.2))
def test_the_best_alignment_is_the_likeliest_of_all(problem: Problem):
    columns = columns_of(problem)
    paths = best_path(columns)
    for b in range(len(problem.canvas)):
        expected = probabilities(problem, b)
        assert bool(paths.exists[b]) == bool(expected)
        if expected:
            path = filled(problem, paths, b)
            assert expected[path] == pytest.approx(max(expected.values()), rel=1e-9)
        else:
            assert not paths.is_slack[b].any()


@settings(max_examples=100)
@given(problem=problems(contradiction=0.0))
@pytest.mark.parametrize("draw", ["sample", "best"])
def test_visible_cells_and_the_target_are_kept(problem: Problem, draw: str):
    columns = columns_of(problem)
    if draw == "best":
        paths = best_path(columns)
    else:
        paths = sample_path(columns, uniforms=draw_uniforms(*problem.canvas.shape))
    for b, length in enumerate(problem.canvas_lengths.tolist()):
        path = filled(problem, paths, b)
        canvas = problem.canvas[b, :length].tolist()
        assert all(
            cell in (MASK_ID, token) for cell, token in zip(canvas, path, strict=True)
        )  # the canvas came from an alignment of this target
        assert oracles.collapse(path, SLACK_ID) == problem.sample(b)[2]
        assert not paths.is_slack[b, length:].any()


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2**-53])
def test_extreme_uniforms_still_reach_the_target(uniform: float):
    scores = torch.zeros(1, 6, 3, dtype=torch.float64)
    lengths = torch.tensor([6]), torch.tensor([4])
    uniforms = torch.full((1, 6), uniform, dtype=torch.float64)
    outside = torch.arange(6)[:, None] - torch.arange(3)
    scores[0, (outside < 0) | (outside >= 4)] = -torch.inf
    columns = Columns(scores, torch.zeros(1, 6).double(), *lengths)
    paths = sample_path(columns, uniforms=uniforms)
    first = [True, True, False, False, False, False]
    assert paths.is_slack[0].tolist() == (first if uniform == 0.0 else first[::-1])


def test_equal_scores_put_slack_as_far_right_as_it_goes():
    scores = torch.zeros(1, 5, 2)
    scores[0, 0, 1] = scores[0, 4, 0] = -torch.inf
    paths = best_path(Columns(scores, torch.zeros(1, 5), torch.tensor([5]), torch.tensor([4])))
    assert paths.is_slack[0].tolist() == [False] * 4 + [True]


def test_a_canvas_without_positions_has_an_empty_alignment():
    lengths = torch.tensor([0, 0]), torch.tensor([0, 1])
    empty = Columns(torch.zeros(2, 0, 1), torch.zeros(2, 0), *lengths)
    for paths in (best_path(empty), sample_path(empty, uniforms=torch.zeros(2, 0))):
        assert paths.is_slack.shape == (2, 0)
        assert paths.exists.tolist() == [True, False]


def test_long_canvases_reach_their_target_in_float32_columns():
    columns = draw_long_columns(600, 400, kind="peaky", visible=0.3)
    uniforms = draw_uniforms(64, 600)
    repeated = map_columns(lambda tensor: tensor.expand(64, *tensor.shape[1:]), columns)
    paths = sample_path(repeated, uniforms=uniforms)
    assert paths.exists.all()
    assert (paths.is_slack.sum(1) == 200).all()
