import math

import numpy as np
import oracles
import pytest
import torch

from slackdlm.errors import DataError
from slackdlm.harness.likelihood import (
    Target,
    are_greedy,
    draw_masks,
    log_likelihood_bounds,
)

PROMPT = [5, 9, 11]


def canvas_logits(loaded, prompt, canvas) -> torch.Tensor:
    with torch.inference_mode():
        logits = loaded.model(input_ids=torch.tensor([[*prompt, *canvas]])).logits
    return logits[0, len(prompt) :].double()


def exact(loaded, prompt, target) -> float:
    return oracles.likelihood_bound(
        lambda canvas: canvas_logits(loaded, prompt, canvas).tolist(),
        target,
        mask_id=loaded.mask_id,
        forbidden=(loaded.mask_id, loaded.slack_id),
    )


@pytest.mark.parametrize("target", [[7], [7, 7], [3, 8, 7, 3], []])
@pytest.mark.parametrize("prompt", [PROMPT, []])
def test_short_targets_are_rated_exactly(toy, prompt, target):
    (bound,) = log_likelihood_bounds(toy, [Target(prompt, target, 0)], num_samples=16, batch_size=3)
    expected = exact(toy, prompt, target) if target else 0.0
    assert bound == pytest.approx(expected, abs=2e-5)


def test_the_estimate_is_the_weighted_sum_over_its_masks(toy):
    target, seed = [3, 8, 7, 3, 10], 4
    masks = draw_masks(len(target), 6, seed)
    assert 1 < len(masks.weights) <= 6
    total = 0.0
    for is_masked, weight in zip(masks.is_masked, masks.weights, strict=True):
        canvas = [toy.mask_id if m else t for m, t in zip(is_masked, target, strict=True)]
        rows = canvas_logits(toy, PROMPT, canvas)
        rows[:, [toy.mask_id, toy.slack_id]] = -torch.inf
        of_target = rows.log_softmax(-1)[torch.arange(5), torch.tensor(target)]
        total += weight * float(of_target[torch.from_numpy(is_masked)].sum())
    (bound,) = log_likelihood_bounds(
        toy, [Target(PROMPT, target, seed)], num_samples=6, batch_size=4
    )
    assert bound == pytest.approx(total, abs=2e-5)


def test_all_masks_come_with_their_exact_shares():
    masks = draw_masks(4, 15, seed=0)
    assert len({tuple(row) for row in masks.is_masked.tolist()}) == 15
    sizes = masks.is_masked.sum(1)
    # Each number of masked cells has probability 1/4; the weight carries 4 / size on top.
    for size in range(1, 5):
        shares = masks.weights[sizes == size] * size / 4
        assert len(shares) == math.comb(4, size)
        assert shares == pytest.approx(1 / 4 / math.comb(4, size))


@pytest.mark.parametrize(("length", "num_samples"), [(5, 30), (20, 8), (20, 32), (7, 1), (40, 128)])
def test_every_number_of_masked_cells_is_equally_likely(length, num_samples):
    """What rounding halves to even loses: for 20 cells and 32 draws even numbers would come up 28 % more often."""
    shares = np.zeros(length + 1)
    draws = 600
    for seed in range(draws):
        masks = draw_masks(length, num_samples, seed)
        sizes = masks.is_masked.sum(1)
        drawn = masks.weights * sizes / length
        assert drawn.sum() == pytest.approx(1)
        np.add.at(shares, sizes, drawn / draws)
    # Within one call the strata differ by at most one draw, so a share's spread is at most 1/(2N) a call.
    tolerance = 5 * min(1 / (2 * num_samples), (1 / length) ** 0.5) / draws**0.5
    assert shares[0] == 0
    assert np.abs(shares[1:] - 1 / length).max() < tolerance


def test_every_cell_is_masked_equally_often():
    counts = sum(draw_masks(9, 16, seed).is_masked.astype(float).sum(0) for seed in range(600))
    assert np.abs(counts / counts.mean() - 1).max() < 0.05


def test_the_mean_over_seeds_is_the_bound():
    """On a made-up table instead of a model, so that thousands of seeds cost nothing."""
    length = 6
    table = np.random.Generator(np.random.PCG64(1)).normal(size=(2**length, length)) - 3

    def weighted(masks) -> float:
        codes = (masks.is_masked << np.arange(length)).sum(1)
        return float((masks.weights * (table[codes] * masks.is_masked).sum(1)).sum())

    expected = weighted(draw_masks(length, 63, 0))
    estimates = np.array([weighted(draw_masks(length, 12, seed)) for seed in range(2000)])
    error = estimates.std() / len(estimates) ** 0.5
    assert error < 0.1
    assert abs(estimates.mean() - expected) < 4 * error


def test_batch_mates_and_order_change_nothing_but_rounding(toy):
    generator = np.random.Generator(np.random.PCG64(2))
    targets = [
        Target(
            generator.integers(4, 30, size=int(p)).tolist(),
            generator.integers(4, 30, size=int(s)).tolist(),
            seed,
        )
        for seed, (p, s) in enumerate(generator.integers(0, 12, size=(7, 2)))
    ]
    alone = [
        log_likelihood_bounds(toy, [target], num_samples=9, batch_size=1)[0] for target in targets
    ]
    together = log_likelihood_bounds(toy, targets, num_samples=9, batch_size=16)
    backwards = log_likelihood_bounds(toy, targets[::-1], num_samples=9, batch_size=5)[::-1]
    assert together == pytest.approx(alone, abs=3e-5)
    assert backwards == pytest.approx(alone, abs=3e-5)
    assert len({round(value, 3) for value in alone}) > 4


def test_the_seed_decides_the_masks_alone():
    first, again, other = (draw_masks(12, 8, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.is_masked, again.is_masked)
    assert not np.array_equal(first.is_masked, other.is_masked)


def greedy(loaded, prompt, length) -> list[int]:
    """One token a step, the surest first; never the mask or slack."""
    canvas = [loaded.mask_id] * length
    while loaded.mask_id in canvas:
        rows = canvas_logits(loaded, prompt, canvas)
        rows[:, [loaded.mask_id, loaded.slack_id]] = -torch.inf
        best = rows.log_softmax(-1).max(-1)
        place = max(
            (i for i, t in enumerate(canvas) if t == loaded.mask_id), key=lambda i: best.values[i]
        )
        canvas[place] = int(best.indices[place])
    return canvas


def test_greedy_targets_are_what_greedy_decoding_writes(toy):
    writes = greedy(toy, PROMPT, 5)
    changed = [
        [*writes[:i], writes[i] + 1 if writes[i] + 1 < toy.mask_id else 4, *writes[i + 1 :]]
        for i in range(5)
    ]
    targets = [Target(PROMPT, ids, 0) for ids in (writes, *changed, greedy(toy, PROMPT, 2), [])]
    expected = [True, False, False, False, False, False, True, True]
    assert are_greedy(toy, targets, batch_size=3) == expected


def test_guidance_moves_away_from_the_prediction_without_the_prompt(toy):
    target, scale = [7], 1.5
    prompted = canvas_logits(toy, PROMPT, [toy.mask_id])[0]
    without = canvas_logits(toy, [toy.mask_id] * len(PROMPT), [toy.mask_id])[0]
    logits = without + (1 + scale) * (prompted - without)
    logits[[toy.mask_id, toy.slack_id]] = -torch.inf
    (bound,) = log_likelihood_bounds(
        toy, [Target(PROMPT, target, 0)], num_samples=1, batch_size=1, guidance=scale
    )
    assert bound == pytest.approx(float(logits.log_softmax(-1)[7]), abs=2e-5)


def test_too_long_texts_are_named_before_anything_is_computed(toy):
    targets = [Target([5] * 100, [6] * 28, 0), Target([5] * 100, [6] * 29, 0)]
    with pytest.raises(
        DataError, match=r"1 of 2 texts are longer than the model's 128 tokens, .* 129; use fewer"
    ):
        log_likelihood_bounds(toy, targets, num_samples=1, batch_size=1)
