"""Slack expected and alignment entropy against a walk over all paths."""

import itertools

import pytest
import torch

from slackdlm.objectives.alignment import Alignment, alignment_of
from slackdlm.objectives.checks import Terms
from slackdlm.objectives.through_head import read_through

MASK, SLACK, V = 7, 6, 8


def align(hidden: torch.Tensor, head: torch.Tensor, *batch: torch.Tensor) -> Alignment:
    terms = Terms(*batch, mask_id=MASK, slack_id=SLACK)
    return alignment_of(
        read_through(lambda x: x @ head.T, hidden, terms, vocab_size=V, chunk_size=2)
    )


def enumerate_entropy(
    log_probs: torch.Tensor, canvas: list[int], target: list[int]
) -> tuple[float, float]:
    """Sum over masked positions of the entropy of (slack or which token); expected slack."""
    length, weights = len(canvas), {}
    for places in itertools.combinations(range(length), len(target)):
        path = [SLACK] * length
        for place, token in zip(places, target, strict=True):
            path[place] = token
        if all(seen in (MASK, token) for seen, token in zip(canvas, path, strict=True)):
            weights[places] = sum(
                float(log_probs[i, path[i]]) for i in range(length) if canvas[i] == MASK
            )
    total = torch.tensor(list(weights.values()), dtype=torch.float64).logsumexp(0)
    entropy = 0.0
    for i in (i for i in range(length) if canvas[i] == MASK):
        mass = torch.zeros(len(target) + 1, dtype=torch.float64)
        for places, weight in weights.items():
            mass[places.index(i) if i in places else -1] += (weight - total).exp()
        entropy += float(torch.special.entr(mass).sum())
    slack = sum(float(log_probs[i, SLACK].exp()) for i in range(length) if canvas[i] == MASK)
    return entropy, slack


@pytest.mark.parametrize("seed", range(4))
def test_it_equals_the_enumeration(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    head = torch.randn(V, 5, generator=generator, dtype=torch.float64)
    canvases = [[MASK, 2, MASK, MASK, SLACK, MASK], [MASK, MASK, 1, MASK, MASK, MASK]]
    targets, lengths = [[1, 2, 2, 3], [1, 1]], [6, 4]
    batch = (
        torch.tensor(canvases),
        torch.tensor([targets[0], [*targets[1], 99, -100]]),
        torch.tensor(lengths),
        torch.tensor([4, 2]),
    )
    result = align(hidden, head, *batch)
    for row in range(2):
        canvas = canvases[row][: lengths[row]]
        log_probs = (hidden[row] @ head.T).log_softmax(1)
        entropy, slack = enumerate_entropy(log_probs, canvas, targets[row])
        assert float(result.entropy[row]) == pytest.approx(entropy, rel=1e-6)
        assert float(result.slack_probability[row]) == pytest.approx(slack, rel=1e-6)
        assert float(result.num_masked[row]) == canvas.count(MASK)


def test_without_slack_nothing_is_undecided_and_the_impossible_is_missing() -> None:
    hidden, head = torch.randn(2, 3, 5), torch.randn(V, 5)
    result = align(
        hidden,
        head,
        torch.tensor([[MASK, MASK, 3], [MASK, 4, MASK]]),
        torch.tensor([[1, 2, 3], [1, 2, 3]]),
        torch.tensor([3, 3]),
        torch.tensor([3, 3]),
    )
    assert float(result.entropy[0]) == pytest.approx(0, abs=1e-6)
    assert torch.isnan(result.entropy[1])


@pytest.mark.parametrize("num_positions", [0, 1, 2])
def test_a_target_longer_than_its_canvas_has_no_alignment(num_positions: int) -> None:
    result = align(
        torch.randn(1, 3, 5),
        torch.randn(V, 5),
        torch.full((1, 3), MASK),
        torch.tensor([[1, 2, 3]]),
        torch.tensor([num_positions]),
        torch.tensor([3]),
    )
    assert torch.isnan(result.entropy).all()
    assert result.num_masked.tolist() == [num_positions]
