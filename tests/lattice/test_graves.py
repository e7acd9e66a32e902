import math

import pytest
import torch
from hypothesis import given, settings
from problems import IDS, SLACK_ID, Problem, expected_gradient, expected_loss, problems

from slackdlm.errors import ConfigError
from slackdlm.lattice.band import Batch
from slackdlm.lattice.graves import graves_log_likelihood, interleave_slack

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@settings(max_examples=150)
@given(problems(contradiction=0.3))
def test_the_recursion_equals_the_enumeration_in_value_and_gradient(problem: Problem):
    logits = problem.logits.requires_grad_()
    loss = -graves_log_likelihood(logits.log_softmax(2), problem.batch)
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), expected_loss(problem, "graves"), **EXACT)
    torch.testing.assert_close(logits.grad, expected_gradient(problem, "graves"), **EXACT)


def test_with_everything_masked_it_equals_the_ctc_loss_of_torch():
    torch.manual_seed(0)
    log_probs = torch.randn(2, 9, 6, dtype=torch.float64).log_softmax(2)
    targets = torch.tensor([[1, 1, 2, 4], [3, 0, 5, 5]])
    lengths = torch.tensor([9, 7]), torch.tensor([4, 2])
    batch = Batch(torch.full((2, 9), 7), targets, *lengths, mask_id=7, slack_id=5, num_slack=5)
    ours = -graves_log_likelihood(log_probs, batch)
    theirs = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), targets, *lengths, blank=5, reduction="none"
    )
    torch.testing.assert_close(ours, theirs, **EXACT)


def test_two_equal_tokens_do_not_fit_on_two_positions():
    log_probs = torch.zeros(1, 2, 4).log_softmax(2)
    two = torch.tensor([2])
    canvas, targets = torch.full((1, 2), IDS["mask_id"]), torch.tensor([[0, 0]])
    batch = Batch(canvas, targets, two, two, **IDS, num_slack=0)
    assert graves_log_likelihood(log_probs, batch).item() == -math.inf


def test_padding_of_a_target_becomes_slack():
    labels = interleave_slack(
        torch.tensor([[1, 2], [0, -100]]), torch.tensor([2, 1]), slack_id=SLACK_ID
    )
    assert labels.tolist() == [[3, 1, 3, 2, 3], [3, 0, 3, 3, 3]]


def test_half_precision_log_probs_are_refused():
    one = torch.tensor([1])
    batch = Batch(one[None], one[None], one, one, **IDS, num_slack=0)
    with pytest.raises(ConfigError, match=r"float32 or float64, got torch\.bfloat16"):
        graves_log_likelihood(torch.zeros(1, 1, 4, dtype=torch.bfloat16), batch)
