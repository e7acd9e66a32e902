import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import IDS, MASK_ID, SLACK_ID, VOCAB_SIZE, Problem, draw_problem, problems
from torch import Tensor

from slackdlm import fused_linear_slack_ctc_loss, masked_ce_loss, slack_ctc_loss
from slackdlm.errors import ConfigError
from slackdlm.objectives import fused_linear, vocabulary_pass
from slackdlm.objectives.checks import Terms
from slackdlm.objectives.through_head import losses_of, read_through

EXACT = {"rtol": 1e-9, "atol": 1e-9}
HIDDEN_SIZE = 3


def draw_layer(problem: Problem, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states and an output layer, float64 with gradients, and a clean canvas."""
    generator = torch.Generator().manual_seed(seed)
    num_samples, num_positions = problem.canvas.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden = normal(num_samples, num_positions, HIDDEN_SIZE).requires_grad_()
    head_weight = normal(VOCAB_SIZE, HIDDEN_SIZE).requires_grad_()
    clean = torch.randint(0, SLACK_ID + 1, problem.canvas.shape, generator=generator)
    return hidden, head_weight, clean


def plain_loss(
    hidden: Tensor,
    head_weight: Tensor,
    problem: Problem,
    clean: Tensor,
    *,
    ctc_weight: float,
    ce_weights: Tensor,
) -> Tensor:
    """The same loss put together from the plain pieces, one position's CE at a time."""
    logits = hidden @ head_weight.T
    loss = torch.zeros(len(problem.canvas), dtype=logits.dtype)
    if ctc_weight > 0:
        loss = loss + ctc_weight * slack_ctc_loss(logits, *problem[1:], **IDS)
    for i in range(problem.canvas.shape[1]):
        at_i = slice(i, i + 1)
        one = torch.ones(len(logits), dtype=torch.long)
        ce = masked_ce_loss(
            logits[:, at_i], problem.canvas[:, at_i], clean[:, at_i], one, mask_id=MASK_ID
        )
        loss = loss + ce_weights[:, i] * ce
    return loss


@settings(max_examples=60)
@given(
    problem=problems(contradiction=0.0),
    ctc_weight=st.sampled_from([0.0, 0.3, 1.0]),
    own_ce_weights=st.booleans(),
    chunk_size=st.sampled_from([1, 2, 5, None]),
    through_head=st.booleans(),
)
def test_it_equals_the_plain_pieces_in_value_and_every_gradient(
    problem: Problem,
    ctc_weight: float,
    own_ce_weights: bool,
    chunk_size: int | None,
    through_head: bool,
):
    hidden, head_weight, clean = draw_layer(problem)
    inside = torch.arange(problem.canvas.shape[1]) < problem.canvas_lengths[:, None]
    ce_weights = inside.double() * (1.0 - ctc_weight)
    if own_ce_weights:
        generator = torch.Generator().manual_seed(1)
        ce_weights = torch.rand(ce_weights.shape, generator=generator).round(decimals=1)
    sample_weights = torch.tensor([0.5, 2.0, 1.0])
    options: dict[str, Any] = IDS | {
        "clean": clean,
        "ctc_weight": ctc_weight,
        "ce_weights": ce_weights if own_ce_weights else None,
        "sample_weights": sample_weights,
    }
    if through_head:
        layer = partial(torch.matmul, other=head_weight.T)
        terms = Terms(*problem[1:], **options)
        loss = losses_of(
            read_through(layer, hidden, terms, vocab_size=VOCAB_SIZE, chunk_size=chunk_size)
        )
    else:
        loss = fused_linear_slack_ctc_loss(
            hidden, head_weight, *problem[1:], **options, chunk_size=chunk_size
        )
    expected = sample_weights * plain_loss(
        hidden, head_weight, problem, clean, ctc_weight=ctc_weight, ce_weights=ce_weights
    )
    torch.testing.assert_close(loss, expected, **EXACT)
    grad_output = torch.tensor([1.0, -0.5, 3.0], dtype=torch.float64)
    ours = torch.autograd.grad(loss, (hidden, head_weight), grad_output)
    theirs = torch.autograd.grad(expected, (hidden, head_weight), grad_output)
    torch.testing.assert_close(ours, theirs, **EXACT)


def batch_of_two(**changes: Any) -> dict[str, Any]:
    """Arguments of a call that works; what is given replaces or adds."""
    return {
        "hidden": torch.randn(2, 3, HIDDEN_SIZE, generator=torch.Generator().manual_seed(0)),
        "head_weight": torch.randn(4, HIDDEN_SIZE, generator=torch.Generator().manual_seed(1)),
        "canvas": torch.tensor([[MASK_ID, 1, MASK_ID], [MASK_ID, MASK_ID, MASK_ID]]),
        "targets": torch.tensor([[0, 1], [2, -100]]),
        "canvas_lengths": torch.tensor([3, 2]),
        "target_lengths": torch.tensor([2, 1]),
        **IDS,
    } | changes


def test_end_of_text_behind_the_canvas_is_supervised_by_its_ce_weight_alone():
    clean = torch.tensor([[0, 1, SLACK_ID], [2, SLACK_ID, 0]])
    ce_weights = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.25]])
    batch = batch_of_two()
    without = fused_linear_slack_ctc_loss(**batch)
    with_padding = fused_linear_slack_ctc_loss(**batch, clean=clean, ce_weights=ce_weights)
    logits = batch["hidden"] @ batch["head_weight"].T
    padding_ce = -logits[1, 2].log_softmax(0)[0]
    torch.testing.assert_close(with_padding[0], without[0])
    torch.testing.assert_close(with_padding[1], without[1] + 0.25 * padding_ce)


def test_without_gradients_the_loss_is_the_same_and_no_gradient_is_computed(
    monkeypatch: pytest.MonkeyPatch,
):
    def refuse(*_: Any) -> None:
        raise RuntimeError("a gradient was computed")

    batch = batch_of_two()
    batch["hidden"].requires_grad_()
    loss = fused_linear_slack_ctc_loss(**batch)
    monkeypatch.setattr(vocabulary_pass, "_subtract_targets", refuse)
    with torch.no_grad():
        assert torch.equal(fused_linear_slack_ctc_loss(**batch), loss)


def test_a_second_pass_is_run_only_where_samples_have_factors_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
):
    def refuse(*_: Any) -> None:
        raise RuntimeError("a second pass")

    hidden = batch_of_two()["hidden"].requires_grad_()
    losses = [fused_linear_slack_ctc_loss(**batch_of_two(hidden=hidden)) for _ in range(2)]
    monkeypatch.setattr(vocabulary_pass, "_subtract_targets", refuse)
    losses[0].mean().backward()
    assert hidden.grad is not None
    with pytest.raises(RuntimeError, match="a second pass"):
        losses[1].backward(torch.tensor([1.0, 2.0]))


def test_ce_weights_at_visible_positions_do_not_matter():
    clean = torch.tensor([[0, 1, SLACK_ID], [2, SLACK_ID, 0]])
    ce_weights = torch.ones(2, 3)
    batch = batch_of_two(clean=clean, ctc_weight=0.5)
    loss = fused_linear_slack_ctc_loss(**batch, ce_weights=ce_weights)
    ce_weights[0, 1] = 100.0
    other = fused_linear_slack_ctc_loss(**batch, ce_weights=ce_weights)
    torch.testing.assert_close(loss, other, rtol=0, atol=0)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.5])
def test_ids_and_lengths_of_any_integer_dtype_are_taken(ctc_weight: float):
    batch = batch_of_two(clean=torch.tensor([[0, 1, 2], [2, 0, 0]]), ctc_weight=ctc_weight)
    ids = ("canvas", "targets", "canvas_lengths", "target_lengths", "clean")
    narrow = batch | {name: batch[name].short() for name in ids}
    assert torch.equal(fused_linear_slack_ctc_loss(**narrow), fused_linear_slack_ctc_loss(**batch))


def test_without_ctc_weight_an_impossible_target_does_not_matter():
    clean = torch.tensor([[0, 1, 2], [2, 0, 0]])
    batch = batch_of_two(clean=clean, ctc_weight=0.0, canvas_lengths=torch.tensor([1, 2]))
    assert fused_linear_slack_ctc_loss(**batch).isfinite().all()


def test_a_sample_of_weight_zero_is_left_out_even_if_impossible():
    batch = batch_of_two(canvas_lengths=torch.tensor([1, 2]))
    hidden, head = batch["hidden"].requires_grad_(), batch["head_weight"].requires_grad_()
    assert fused_linear_slack_ctc_loss(**batch)[0].item() == math.inf
    loss = fused_linear_slack_ctc_loss(**batch, sample_weights=torch.tensor([0.0, 1.0]))
    loss.sum().backward()
    assert loss[0].item() == 0.0
    assert hidden.grad is not None
    assert hidden.grad[0].abs().sum() == 0
    assert head.grad is not None
    assert head.grad.isfinite().all()


def test_an_impossible_sample_leaves_no_trace_in_the_gradient_of_the_head():
    alone = {
        name: x[1:] if torch.is_tensor(x) and name != "head_weight" else x
        for name, x in batch_of_two().items()
    }
    pair = batch_of_two(canvas_lengths=torch.tensor([1, 2]))
    gradients = []
    for batch in (alone, pair):
        head = batch["head_weight"].requires_grad_()
        (gradient,) = torch.autograd.grad(fused_linear_slack_ctc_loss(**batch).sum(), head)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients)


def test_a_batch_with_nothing_masked_and_nothing_wrong_costs_nothing():
    canvas = torch.tensor([[0, 1, SLACK_ID], [2, SLACK_ID, 0]])
    batch = batch_of_two(canvas=canvas)
    batch["hidden"].requires_grad_()
    loss = fused_linear_slack_ctc_loss(**batch)
    loss.sum().backward()
    assert loss.tolist() == [0.0, 0.0]
    assert batch["hidden"].grad.abs().sum() == 0


def test_an_empty_batch_has_no_loss_and_gradients_of_0():
    of_samples = ("hidden", "canvas", "targets", "canvas_lengths", "target_lengths")
    batch = batch_of_two()
    batch |= {name: batch[name][:0].requires_grad_(name == "hidden") for name in of_samples}
    batch["head_weight"].requires_grad_()
    loss = fused_linear_slack_ctc_loss(**batch)
    assert loss.shape == (0,)
    loss.sum().backward()
    assert batch["head_weight"].grad.abs().sum() == 0


@pytest.mark.parametrize("frozen", ["hidden", "head_weight"])
def test_what_is_frozen_gets_no_gradient_and_the_other_the_same(frozen: str):
    names = ["hidden", "head_weight"]
    both = batch_of_two()
    for name in names:
        both[name].requires_grad_()
    fused_linear_slack_ctc_loss(**both).sum().backward()
    one = batch_of_two()
    (free,) = (name for name in names if name != frozen)
    one[free].requires_grad_()
    fused_linear_slack_ctc_loss(**one).sum().backward()
    assert one[frozen].grad is None
    torch.testing.assert_close(one[free].grad, both[free].grad)


def test_under_autocast_it_stays_close_to_float32_and_returns_float32():
    problem = draw_problem(8, num_samples=4, num_positions=6, contradiction=0.0)
    hidden, head_weight, clean = (x.detach() for x in draw_layer(problem))
    hidden, head_weight = hidden.float().requires_grad_(), head_weight.float().requires_grad_()
    options: dict[str, Any] = {**IDS, "clean": clean, "ctc_weight": 0.5}
    loss = fused_linear_slack_ctc_loss(hidden, head_weight, *problem[1:], **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = fused_linear_slack_ctc_loss(hidden, head_weight, *problem[1:], **options)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, loss, rtol=0.03, atol=0.05)
    ours = torch.autograd.grad(half.sum(), (hidden, head_weight))
    theirs = torch.autograd.grad(loss.sum(), (hidden, head_weight))
    assert [x.dtype for x in ours] == [torch.float32, torch.float32]
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.1)


@settings(max_examples=40)
@given(
    problem=problems(contradiction=0.0),
    ctc_weight=st.sampled_from([0.0, 0.3, 1.0]),
    chunk_size=st.sampled_from([1, 2, None]),
    factors=st.sampled_from([(1.0, 1.0, 1.0), (1.0, -0.5, 3.0)]),
)
def test_a_slack_row_takes_the_place_of_the_output_layers_own(
    problem: Problem, ctc_weight: float, chunk_size: int | None, factors: tuple[float, ...]
):
    hidden, head_weight, clean = draw_layer(problem)
    row = torch.tensor([0.3, -1.0, 0.7], dtype=torch.float64, requires_grad=True)
    joined = head_weight.index_copy(0, torch.tensor([SLACK_ID]), row[None])
    options: dict[str, Any] = {**IDS, "clean": clean, "ctc_weight": ctc_weight}
    options |= {"chunk_size": chunk_size}
    own = fused_linear_slack_ctc_loss(hidden, head_weight, *problem[1:], **options, slack_row=row)
    whole = fused_linear_slack_ctc_loss(hidden, joined, *problem[1:], **options)
    torch.testing.assert_close(own, whole, **EXACT)
    grad_output = torch.tensor(factors, dtype=torch.float64)
    ours, theirs = (
        torch.autograd.grad(loss, (hidden, head_weight, row), grad_output) for loss in (own, whole)
    )
    torch.testing.assert_close(ours, theirs, **EXACT)


def test_a_slack_row_is_trained_under_a_frozen_output_layer():
    row = torch.tensor([0.3, -1.0, 0.7], requires_grad=True)
    batch = batch_of_two(slack_row=row)
    fused_linear_slack_ctc_loss(**batch).sum().backward()
    head = batch_of_two()["head_weight"]
    head[SLACK_ID] = row.detach()
    head.requires_grad_()
    fused_linear_slack_ctc_loss(**batch_of_two(head_weight=head)).sum().backward()
    assert batch["head_weight"].grad is None
    torch.testing.assert_close(row.grad, head.grad[SLACK_ID])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (torch.zeros(2), "hidden has 3 features but slack_row has 2"),
        (torch.zeros(1, 3), r"slack_row must be floating point \[D\]"),
        (torch.zeros(3, dtype=torch.long), r"slack_row must be floating point \[D\]"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_slack_row_of_another_shape_is_refused(row: Tensor, message: str):
    with pytest.raises(ConfigError, match=message):
        fused_linear_slack_ctc_loss(**batch_of_two(slack_row=row))


@pytest.mark.parametrize("tile", [1, 3, 1000])
def test_the_tiles_of_the_band_do_not_show(tile: int, monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 11, HIDDEN_SIZE, generator=generator, dtype=torch.float64)
    head = torch.randn(VOCAB_SIZE, HIDDEN_SIZE, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 3, (2, 7), generator=generator)
    monkeypatch.setattr(fused_linear, "_TILE", tile)
    band = fused_linear.band_logits(hidden, head, targets, num_slack=4)
    logits = hidden @ head.T
    for i in range(11):
        for k in range(5):
            is_token = 0 <= i - k < 7
            for b in range(2):
                expected = logits[b, i, targets[b, i - k]] if is_token else torch.tensor(0.0)
                torch.testing.assert_close(band[b, i, k], expected, check_dtype=False)
