import math

import oracles
import pytest
import torch
from hypothesis import given
from problems import MASK_ID, SLACK_ID, Problem, problems

from slackdlm import masked_ce_loss


@given(problem=problems())
def test_it_equals_the_oracle_in_value_and_gradient(problem: Problem):
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, SLACK_ID + 1, problem.canvas.shape, generator=generator)
    logits = problem.logits.requires_grad_()
    loss = masked_ce_loss(logits, problem.canvas, clean, problem.canvas_lengths, mask_id=MASK_ID)
    loss.sum().backward()
    expected_gradient = torch.zeros_like(problem.logits)
    for b, num_positions in enumerate(problem.canvas_lengths.tolist()):
        rows, canvas, _ = problem.sample(b)
        expected = oracles.masked_ce(rows, canvas, clean[b].tolist(), mask_id=MASK_ID)
        assert loss[b].item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
        for i in range(num_positions):
            if canvas[i] == MASK_ID:
                expected_gradient[b, i] = problem.logits[b, i].detach().softmax(0)
                expected_gradient[b, i, clean[b, i]] -= 1
    torch.testing.assert_close(logits.grad, expected_gradient, rtol=1e-12, atol=1e-12)


def test_nothing_masked_costs_nothing():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    canvas = torch.zeros(2, 3, dtype=torch.long)
    loss = masked_ce_loss(logits, canvas, canvas, torch.tensor([3, 0]), mask_id=MASK_ID)
    loss.sum().backward()
    assert loss.tolist() == [0.0, 0.0]
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_clean_is_not_read_where_nothing_is_masked_or_behind_the_canvas():
    canvas = torch.tensor([[MASK_ID, 0, MASK_ID]])
    clean = torch.tensor([[1, -100, -100]])
    loss = masked_ce_loss(torch.zeros(1, 3, 4), canvas, clean, torch.tensor([2]), mask_id=MASK_ID)
    assert loss.item() == pytest.approx(math.log(4))


def test_half_precision_logits_are_computed_in_float32():
    logits = torch.randn(1, 2, 4, dtype=torch.bfloat16, requires_grad=True)
    canvas, clean = torch.full((1, 2), MASK_ID), torch.tensor([[1, 3]])
    loss = masked_ce_loss(logits, canvas, clean, torch.tensor([2]), mask_id=MASK_ID)
    expected = masked_ce_loss(logits.float(), canvas, clean, torch.tensor([2]), mask_id=MASK_ID)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32])
def test_ids_and_lengths_of_any_integer_dtype_are_taken(dtype: torch.dtype):
    batch = torch.tensor([[MASK_ID, 2, MASK_ID]]), torch.tensor([[1, 2, 3]]), torch.tensor([3])
    logits = torch.randn(1, 3, 4)
    narrow = (part.to(dtype) for part in batch)
    loss = masked_ce_loss(logits, *narrow, mask_id=MASK_ID)
    assert torch.equal(loss, masked_ce_loss(logits, *batch, mask_id=MASK_ID))
