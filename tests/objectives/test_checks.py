"""Every input that cannot be a loss is refused with a message that names it."""

import math
from typing import Any

import pytest
import torch

from slackdlm import fused_linear_slack_ctc_loss, masked_ce_loss, slack_ctc_loss
from slackdlm.errors import ConfigError

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

NUM_SAMPLES, NUM_POSITIONS, VOCAB_SIZE, HIDDEN_SIZE = 2, 4, 6, 3
SLACK, MASK = 5, 9
LONG = torch.long


def batch(**changes: Any) -> dict[str, Any]:
    return {
        "canvas": torch.full((NUM_SAMPLES, NUM_POSITIONS), MASK),
        "targets": torch.tensor([[0, 1], [2, -100]]),
        "canvas_lengths": torch.tensor([4, 3]),
        "target_lengths": torch.tensor([2, 1]),
        "mask_id": MASK,
        "slack_id": SLACK,
    } | changes


def canvas_with(token: int) -> torch.Tensor:
    canvas = batch()["canvas"]
    canvas[1, 0] = token
    return canvas


BAD_BATCHES = [
    ({"mask_id": SLACK}, "mask_id and slack_id are both 5"),
    ({"mask_id": -1}, "mask_id must not be negative, got -1"),
    ({"slack_id": 6}, "slack_id 6 lies outside the vocabulary of 6"),
    ({"slack_id": -1}, "slack_id -1 lies outside the vocabulary"),
    ({"canvas": torch.full((2, 3), MASK)}, r"canvas must have shape \(2, 4\), got \(2, 3\)"),
    ({"canvas": torch.full((2, 4), 9.0)}, "canvas must hold integers, got torch.float32"),
    ({"canvas": canvas_with(-1)}, "canvas holds an id outside the vocabulary of 6"),
    ({"canvas": canvas_with(8)}, "canvas holds an id outside the vocabulary of 6"),
    ({"targets": torch.tensor([0, 1])}, r"targets must be \[B, S\], got shape \(2,\)"),
    ({"targets": torch.zeros(3, 2, dtype=LONG)}, r"targets must have shape \(2, 2\)"),
    ({"targets": torch.zeros(2, 2, dtype=torch.bool)}, "targets must hold integers, got torch.bool"),
    ({"targets": torch.tensor([[0, 6], [0, 0]])}, "targets hold an id outside the vocabulary"),
    ({"targets": torch.tensor([[0, -1], [0, 0]])}, "targets hold an id outside the vocabulary"),
    ({"targets": torch.tensor([[0, 5], [0, 0]])}, "targets hold the slack id 5"),
    (
        {"targets": torch.tensor([[0, 4], [0, 0]]), "mask_id": 4, "canvas": canvas_with(4) * 0},
        "targets hold the mask id 4",
    ),
    ({"canvas_lengths": torch.tensor([4])}, r"canvas_lengths must have shape \(2,\), got \(1,\)"),
    ({"canvas_lengths": torch.tensor([4.0, 3])}, "canvas_lengths must hold integers"),
    ({"canvas_lengths": torch.tensor([5, 3])}, "canvas_lengths must lie between 0 and L = 4"),
    ({"canvas_lengths": torch.tensor([-1, 3])}, "canvas_lengths must lie between 0 and L = 4"),
    ({"target_lengths": torch.tensor([[2, 1]])}, r"target_lengths must have shape \(2,\)"),
    ({"target_lengths": torch.tensor([2.0, 1])}, "target_lengths must hold integers"),
    ({"target_lengths": torch.tensor([3, 1])}, "target_lengths must lie between 0 and S = 2"),
    ({"target_lengths": torch.tensor([2, -1])}, "target_lengths must lie between 0 and S = 2"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BAD_BATCHES)
def test_a_bad_batch_is_refused(changes: dict[str, Any], message: str):
    """By the check that slack-CTC and the fused loss share."""
    logits = torch.zeros(NUM_SAMPLES, NUM_POSITIONS, VOCAB_SIZE)
    with pytest.raises(ConfigError, match=f"slack_ctc_loss: {message}"):
        slack_ctc_loss(logits, **batch(**changes))


@pytest.mark.parametrize(
    ("logits", "collapse", "message"),
    [
        (torch.zeros(4, 6), "slack", r"logits must be floating point \[B L V\], got .* \(4, 6\)"),
        (torch.zeros(2, 4, 6, dtype=LONG), "slack", "logits must be floating point .* torch.int64"),
        (torch.zeros(2, 4, 6), "blank", "unknown collapse 'blank'; use 'slack' or 'graves'"),
    ],
)
def test_slack_ctc_refuses_bad_logits_and_maps(logits: torch.Tensor, collapse: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        slack_ctc_loss(logits, **batch(), collapse=collapse)


def clean_with(token: int) -> torch.Tensor:
    clean = torch.zeros(NUM_SAMPLES, NUM_POSITIONS, dtype=LONG)
    clean[0, 1] = token
    return clean


BAD_FUSED_OPTIONS = [
    ({"hidden": torch.zeros(2, 4)}, r"hidden must be floating point \[B L D\]"),
    ({"hidden": torch.zeros(2, 4, 3, dtype=LONG)}, "hidden must be floating point .* torch.int64"),
    ({"hidden": torch.zeros(2, 4, 2)}, "hidden has 2 features but head_weight has 3"),
    ({"head_weight": torch.zeros(6)}, r"head_weight must be floating point \[V D\]"),
    ({"ctc_weight": 1.1}, r"ctc_weight must lie in \[0, 1\], got 1.1"),
    ({"ctc_weight": math.nan}, r"ctc_weight must lie in \[0, 1\], got nan"),
    ({"ctc_weight": 0.5}, "cross-entropy has weight .* but clean is missing"),
    ({"ce_weights": torch.zeros(2, 4)}, "cross-entropy has weight .* but clean is missing"),
    (
        {"clean": clean_with(0), "ce_weights": torch.ones(2, 3)},
        r"ce_weights must have shape \(2, 4\)",
    ),
    ({"clean": clean_with(0), "ce_weights": -torch.ones(2, 4)}, "ce_weights must be finite and at"),
    (
        {"clean": clean_with(0), "ce_weights": torch.full((2, 4), math.nan)},
        "ce_weights must be finite and at least 0",
    ),
    ({"clean": torch.zeros(2, 3, dtype=LONG)}, r"clean must have shape \(2, 4\)"),
    ({"clean": torch.zeros(2, 4)}, "clean must hold integers, got torch.float32"),
    ({"clean": clean_with(-100), "ctc_weight": 0.5}, "clean holds an id outside the vocabulary"),
    ({"clean": clean_with(6), "ctc_weight": 0.5}, "clean holds an id outside the vocabulary of 6"),
    ({"clean": clean_with(MASK), "ctc_weight": 0.5}, "clean holds an id outside the vocabulary"),
    ({"clean": clean_with(4), "ctc_weight": 0.5, "mask_id": 4}, "clean holds the mask id 4"),
    ({"sample_weights": torch.ones(3)}, r"sample_weights must have shape \(2,\), got \(3,\)"),
    ({"sample_weights": torch.tensor([1, -1.0])}, "sample_weights must be finite and at least 0"),
    ({"sample_weights": torch.tensor([1, math.inf])}, "sample_weights must be finite and at least"),
    ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_FUSED_OPTIONS)
def test_the_fused_loss_refuses_bad_options(changes: dict[str, Any], message: str):
    options = batch(
        hidden=torch.zeros(NUM_SAMPLES, NUM_POSITIONS, HIDDEN_SIZE),
        head_weight=torch.zeros(VOCAB_SIZE, HIDDEN_SIZE),
    )
    if "mask_id" in changes:
        options["canvas"] = torch.full_like(options["canvas"], changes["mask_id"])
    with pytest.raises(ConfigError, match=f"fused_linear_slack_ctc_loss: {message}"):
        fused_linear_slack_ctc_loss(**(options | changes))


@pytest.mark.parametrize("name", ["ce_weights", "sample_weights"])
def test_the_fused_loss_refuses_weights_that_want_a_gradient(name: str):
    shape = {"ce_weights": (NUM_SAMPLES, NUM_POSITIONS), "sample_weights": (NUM_SAMPLES,)}[name]
    options = {name: torch.ones(shape, requires_grad=True), "clean": clean_with(0)}
    with pytest.raises(ConfigError, match=f"{name} must be constants; detach them"):
        fused_linear_slack_ctc_loss(torch.zeros(2, 4, 3), torch.zeros(6, 3), **batch(), **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": torch.zeros(2, 4)}, r"logits must be floating point \[B L V\]"),
        ({"canvas": torch.full((2, 3), MASK)}, r"canvas must have shape \(2, 4\)"),
        ({"canvas": canvas_with(8)}, "canvas holds an id outside the vocabulary of 6"),
        ({"clean": torch.zeros(2, 3, dtype=LONG)}, r"clean must have shape \(2, 4\)"),
        ({"clean": clean_with(6)}, "clean holds an id outside the vocabulary of 6"),
        ({"clean": clean_with(4), "mask_id": 4}, "clean holds the mask id 4"),
        ({"canvas_lengths": torch.tensor([5, 3])}, "canvas_lengths must lie between 0 and L = 4"),
        ({"canvas_lengths": torch.tensor([4])}, r"canvas_lengths must have shape \(2,\)"),
        ({"mask_id": -2}, "mask_id must not be negative, got -2"),
    ],
)
def test_masked_ce_refuses_bad_input(changes: dict[str, Any], message: str):
    canvas = canvas_with(0)
    if changes.get("mask_id") == 4:
        canvas = torch.full_like(canvas, 4)
    options = {
        "logits": torch.zeros(NUM_SAMPLES, NUM_POSITIONS, VOCAB_SIZE),
        "canvas": canvas,
        "clean": clean_with(0),
        "canvas_lengths": torch.tensor([4, 3]),
        "mask_id": MASK,
    }
    with pytest.raises(ConfigError, match=f"masked_ce_loss: {message}"):
        masked_ce_loss(**(options | changes))
