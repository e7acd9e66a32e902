import math

import pytest
import torch
from hypothesis import given, settings
from problems import Problem, expected_gradient, expected_loss, problems

from slackdlm.errors import ConfigError
from slackdlm.lattice.band import Columns, gather_columns
from slackdlm.lattice.reference import band_log_likelihood, safe_logaddexp

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def loss_of(problem: Problem, logits: torch.Tensor) -> torch.Tensor:
    return -band_log_likelihood(gather_columns(logits.log_softmax(2), problem.batch))


@settings(max_examples=150)
@given(problems())
def test_the_recursion_equals_the_enumeration_in_value_and_gradient(problem: Problem):
    logits = problem.logits.requires_grad_()
    loss = loss_of(problem, logits)
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), expected_loss(problem), **EXACT)
    torch.testing.assert_close(logits.grad, expected_gradient(problem), **EXACT)


def test_two_impossible_terms_add_to_impossible_with_zero_gradient():
    left = torch.tensor([-math.inf, -math.inf, 0.0], dtype=torch.float64, requires_grad=True)
    right = torch.tensor([-math.inf, 1.0, -math.inf], dtype=torch.float64, requires_grad=True)
    total = safe_logaddexp(left, right)
    total[1:].sum().backward(retain_graph=True)
    assert total.tolist() == [-math.inf, 1.0, 0.0]
    total[0].backward()
    assert left.grad is not None
    assert right.grad is not None
    assert left.grad.tolist() == [0.0, 0.0, 1.0]
    assert right.grad.tolist() == [0.0, 1.0, 0.0]


def test_an_empty_canvas_with_an_empty_target_is_certain():
    nothing = torch.zeros(2, dtype=torch.long)
    for num_positions in (0, 3):
        token = torch.full((2, num_positions, 1), -math.inf)
        slack = torch.zeros(2, num_positions)
        assert band_log_likelihood(Columns(token, slack, nothing, nothing)).tolist() == [0.0, 0.0]


def test_a_target_longer_than_its_canvas_is_impossible_with_zero_gradient():
    token = torch.zeros(1, 2, 1, requires_grad=True)
    lengths = torch.tensor([2]), torch.tensor([3])
    log_likelihood = band_log_likelihood(Columns(token, torch.zeros(1, 2), *lengths))
    log_likelihood.backward()
    assert log_likelihood.item() == -math.inf
    assert token.grad is not None
    assert token.grad.abs().sum() == 0


def test_a_single_improbable_path_is_summed_exactly():
    num_positions = 512
    token = torch.full((1, num_positions, 1), -300.0, requires_grad=True)
    slack = torch.full((1, num_positions), -1.0)
    length = torch.tensor([num_positions])
    log_likelihood = band_log_likelihood(Columns(token, slack, length, length))
    log_likelihood.backward()
    assert log_likelihood.item() == -300.0 * num_positions
    assert token.grad is not None
    torch.testing.assert_close(token.grad, torch.ones_like(token))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_columns_are_refused(dtype: torch.dtype):
    length = torch.tensor([2])
    scores = torch.zeros(1, 2, 1, dtype=dtype), torch.zeros(1, 2, dtype=dtype)
    with pytest.raises(ConfigError, match=r"float32 or float64, got torch\.b?float16"):
        band_log_likelihood(Columns(*scores, length, length))


def test_gradcheck_in_float64():
    torch.manual_seed(0)
    token = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    slack = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([5, 4]), torch.tensor([3, 2])
    assert torch.autograd.gradcheck(
        lambda *scores: band_log_likelihood(Columns(*scores, *lengths)), (token, slack)
    )
