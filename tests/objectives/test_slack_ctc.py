"""The six facts of the method, on logits and through the output layer alike."""

import itertools
import math
from collections.abc import Callable

import oracles
import pytest
import torch
from hypothesis import given, settings
from problems import (
    IDS,
    MASK_ID,
    NUM_TOKENS,
    SLACK_ID,
    VOCAB_SIZE,
    Problem,
    draw_problem,
    expected_gradient,
    expected_loss,
    problems,
)
from torch import Tensor

from slackdlm import fused_linear_slack_ctc_loss, masked_ce_loss, slack_ctc_loss

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def through_identity_head(logits: Tensor, *batch: Tensor, mask_id: int, slack_id: int) -> Tensor:
    """The fused loss on hidden states that are the logits already."""
    head = torch.eye(logits.shape[2], dtype=logits.dtype)
    return fused_linear_slack_ctc_loss(logits, head, *batch, mask_id=mask_id, slack_id=slack_id)


LossFunction = Callable[..., Tensor]
either_loss = pytest.mark.parametrize("loss_function", [slack_ctc_loss, through_identity_head])


def loss_and_gradient(loss_function: LossFunction, problem: Problem) -> tuple[Tensor, Tensor]:
    logits = problem.logits.clone().requires_grad_()
    loss = loss_function(logits, *problem[1:], **IDS)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), gradient


def one(canvas: list[int], target: list[int], logits: Tensor) -> Problem:
    """A batch of one."""
    return Problem(
        logits[None],
        torch.tensor([canvas], dtype=torch.long),
        torch.tensor([target], dtype=torch.long),
        torch.tensor([len(canvas)]),
        torch.tensor([len(target)]),
    )


def random_logits(num_positions: int, scale: float = 1.0, vocab_size: int = VOCAB_SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return scale * torch.randn(num_positions, vocab_size, generator=generator, dtype=torch.float64)


@either_loss
@settings(max_examples=100)
@given(problem=problems())
def test_it_equals_the_enumeration_in_value_and_gradient(
    loss_function: LossFunction, problem: Problem
):
    loss, gradient = loss_and_gradient(loss_function, problem)
    torch.testing.assert_close(loss, expected_loss(problem), **EXACT)
    torch.testing.assert_close(gradient, expected_gradient(problem), **EXACT)


@settings(max_examples=50)
@given(problem=problems(contradiction=0.3))
def test_the_graves_map_equals_the_enumeration_too(problem: Problem):
    logits = problem.logits.requires_grad_()
    loss = slack_ctc_loss(logits, *problem[1:], **IDS, collapse="graves")
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), expected_loss(problem, "graves"), **EXACT)
    torch.testing.assert_close(logits.grad, expected_gradient(problem, "graves"), **EXACT)


@either_loss
@pytest.mark.parametrize("visible", [0.0, 0.5, 1.0])
def test_fact_1_without_slack_it_is_the_masked_cross_entropy(
    loss_function: LossFunction, visible: float
):
    problem = draw_problem(3, num_samples=6, num_positions=6, visible=visible, contradiction=0.0)
    clean = torch.randint(0, NUM_TOKENS, (6, 6), generator=torch.Generator().manual_seed(0))
    canvas = torch.where(problem.canvas == MASK_ID, MASK_ID, clean)
    lengths = problem.canvas_lengths
    problem = problem._replace(canvas=canvas, targets=clean, target_lengths=lengths)
    loss, gradient = loss_and_gradient(loss_function, problem)
    logits = problem.logits.clone().requires_grad_()
    ce = masked_ce_loss(logits, canvas, clean, lengths, mask_id=MASK_ID)
    ce.sum().backward()
    torch.testing.assert_close(loss, ce.detach(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(gradient, logits.grad, rtol=1e-13, atol=1e-13)


@either_loss
@settings(max_examples=50)
@given(problem=problems(contradiction=0.0, visible=0.3))
def test_fact_2_it_never_exceeds_the_cross_entropy_of_any_canvas_of_the_target(
    loss_function: LossFunction, problem: Problem
):
    loss, _ = loss_and_gradient(loss_function, problem)
    for b, value in enumerate(loss.tolist()):
        logits, canvas, target = problem.sample(b)
        canvases = [
            path
            for path in oracles.fillings(canvas, MASK_ID, VOCAB_SIZE)
            if oracles.collapse(path, SLACK_ID) == target
        ]
        assert canvases or value == math.inf
        for clean in canvases:
            assert value <= oracles.masked_ce(logits, canvas, clean, mask_id=MASK_ID) + 1e-9


@either_loss
@pytest.mark.parametrize("canvas", [[MASK_ID] * 4, [MASK_ID, 1, MASK_ID, SLACK_ID], [0, SLACK_ID]])
@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0])
def test_fact_3_the_probabilities_of_all_targets_sum_to_one(
    loss_function: LossFunction, canvas: list[int], scale: float
):
    logits = random_logits(len(canvas), scale)
    total = 0.0
    for num_tokens in range(len(canvas) + 1):
        for target in itertools.product(range(NUM_TOKENS), repeat=num_tokens):
            loss, _ = loss_and_gradient(loss_function, one(canvas, list(target), logits))
            total += math.exp(-loss.item())
    assert total == pytest.approx(1.0, abs=1e-12)


@either_loss
def test_fact_4_the_gradient_is_softmax_minus_posterior_and_spares_visible_positions(
    loss_function: LossFunction,
):
    canvas, target = [MASK_ID, 1, MASK_ID, MASK_ID, SLACK_ID, MASK_ID], [1, 1, 0]
    problem = one(canvas, target, random_logits(6))
    _, gradient = loss_and_gradient(loss_function, problem)
    posterior = problem.logits.softmax(2) - gradient
    for i, visible in enumerate(canvas):
        if visible == MASK_ID:
            allowed = {SLACK_ID, *target[max(0, i - 3) : i + 1]}
            assert posterior[0, i].sum().item() == pytest.approx(1.0)
            assert posterior[0, i].min() > -1e-12
            outside = [v for v in range(VOCAB_SIZE) if v not in allowed]
            assert posterior[0, i, outside].abs().sum() < 1e-12
        else:
            assert gradient[0, i].abs().max() == 0


@either_loss
@pytest.mark.parametrize("target", [[], [2], [0, 1, 2], [1, 1, 1], [0, 0, 2, 2, 0, 0]])
def test_fact_5_uniform_logits_have_a_closed_form_with_or_without_repeats(
    loss_function: LossFunction, target: list[int]
):
    num_positions = 6
    problem = one([MASK_ID] * num_positions, target, torch.zeros(num_positions, 10).double())
    loss, _ = loss_and_gradient(loss_function, problem)
    expected = num_positions * math.log(10) - math.log(math.comb(num_positions, len(target)))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@either_loss
@pytest.mark.parametrize(
    ("canvas", "target"),
    [
        ([MASK_ID, MASK_ID], [0, 1, 2]),  # longer than the canvas
        ([MASK_ID, 2, MASK_ID], [0, 1]),  # shows a token that the target lacks
        ([SLACK_ID, SLACK_ID, MASK_ID], [0, 1]),  # shows too much slack
        ([1, MASK_ID, 0], [0, 1]),  # shows tokens in the wrong order
        ([], [0]),  # no position at all
        ([0, 1], [1, 0]),  # nothing masked, wrong answer
    ],
)
def test_fact_6_an_impossible_target_costs_infinity_with_zero_gradient_and_spares_its_batch_mates(
    loss_function: LossFunction, canvas: list[int], target: list[int]
):
    def beside_a_possible_sample(first: Problem) -> Problem:
        canvas_pair = torch.full((2, 3), MASK_ID)
        canvas_pair[0, : len(canvas)] = torch.tensor(canvas, dtype=torch.long)
        targets = torch.full((2, 3), -100)
        targets[0, : len(target)] = torch.tensor(target)
        targets[1, 0] = 1
        logits = torch.stack((random_logits(3), random_logits(3)))
        lengths = torch.tensor([len(canvas), 3]), torch.tensor([len(target), 1])
        return Problem(logits, canvas_pair, targets, *lengths)

    alone = one([MASK_ID] * 3, [1], random_logits(3))
    loss, gradient = loss_and_gradient(loss_function, beside_a_possible_sample(alone))
    mate_loss, mate_gradient = loss_and_gradient(loss_function, alone)
    assert loss[0].item() == math.inf
    assert gradient[0].abs().max() == 0
    torch.testing.assert_close(loss[1:], mate_loss, **EXACT)
    torch.testing.assert_close(gradient[1:], mate_gradient, **EXACT)


@either_loss
def test_batch_mates_and_padding_change_nothing(loss_function: LossFunction):
    batch = draw_problem(11, num_samples=4, num_positions=6, contradiction=0.0)
    loss, gradient = loss_and_gradient(loss_function, batch)
    for b in range(4):
        logits, canvas, target = batch.sample(b)
        num_positions = len(canvas)
        if num_positions == 0:
            assert loss[b].item() == 0.0
            continue
        alone = one(canvas, target, torch.tensor(logits, dtype=torch.float64))
        alone_loss, alone_gradient = loss_and_gradient(loss_function, alone)
        torch.testing.assert_close(loss[b : b + 1], alone_loss, **EXACT)
        torch.testing.assert_close(gradient[b, :num_positions], alone_gradient[0], **EXACT)
        assert gradient[b, num_positions:].abs().sum() == 0


@either_loss
def test_the_gradient_scales_with_the_gradient_of_each_sample(loss_function: LossFunction):
    problem = draw_problem(5, num_samples=3, contradiction=0.0)
    weights = torch.tensor([2.0, 0.0, -3.0], dtype=torch.float64)
    _, gradient = loss_and_gradient(loss_function, problem)
    logits = problem.logits.clone().requires_grad_()
    loss_function(logits, *problem[1:], **IDS).backward(weights)
    torch.testing.assert_close(logits.grad, weights[:, None, None] * gradient, **EXACT)


@either_loss
def test_gradcheck_in_float64(loss_function: LossFunction):
    problem = draw_problem(2, num_samples=3, contradiction=0.0)
    logits = problem.logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss_function(x, *problem[1:], **IDS), (logits,))


@either_loss
def test_long_improbable_paths_stay_exact(loss_function: LossFunction):
    num_positions = 512
    logits = torch.zeros(num_positions, VOCAB_SIZE, dtype=torch.float64)
    logits[:, 0] = -300.0
    problem = one([MASK_ID] * num_positions, [0] * num_positions, logits)
    loss, gradient = loss_and_gradient(loss_function, problem)
    assert loss.item() == pytest.approx(num_positions * (300.0 + math.log(3)), rel=1e-12)
    assert gradient[0, :, 0].tolist() == [-1.0] * num_positions


@either_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(
    loss_function: LossFunction, dtype: torch.dtype
):
    problem = draw_problem(4, num_samples=3, contradiction=0.0)
    half = problem._replace(logits=problem.logits.to(dtype))
    loss, gradient = loss_and_gradient(loss_function, half)
    full = problem._replace(logits=half.logits.double())
    assert loss.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(loss.double(), expected_loss(full), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        gradient.double(), expected_gradient(full), rtol=0, atol=0.5 * torch.finfo(dtype).eps
    )


def test_logits_of_minus_infinity_forbid_a_token():
    logits = random_logits(3)
    logits[1, SLACK_ID] = -math.inf
    loss, gradient = loss_and_gradient(slack_ctc_loss, one([MASK_ID] * 3, [1], logits))
    log_probs = logits.log_softmax(1)
    expected = log_probs[0, SLACK_ID] + log_probs[1, 1] + log_probs[2, SLACK_ID]
    torch.testing.assert_close(loss[0], -expected, **EXACT)
    assert gradient[0, 1, SLACK_ID] == 0
    assert not gradient.isnan().any()


@either_loss
def test_logits_that_are_nan_give_nan_and_no_number(loss_function: LossFunction):
    logits = random_logits(3)
    logits[1, 0] = math.nan
    loss, _ = loss_and_gradient(loss_function, one([MASK_ID] * 3, [1], logits))
    assert loss.isnan().all()


@either_loss
@pytest.mark.parametrize("dtype", [torch.int16, torch.int32])
def test_ids_and_lengths_of_any_integer_dtype_are_taken(
    loss_function: LossFunction, dtype: torch.dtype
):
    problem = draw_problem(5)
    narrow = (part.to(dtype) for part in problem[1:])
    loss = loss_function(problem.logits, *narrow, **IDS)
    assert torch.equal(loss, loss_function(*problem, **IDS))
