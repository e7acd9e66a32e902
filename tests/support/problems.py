"""Random small batches for the losses, hard cases included, and what the enumeration says."""

from collections.abc import Callable
from typing import NamedTuple

import oracles
import torch
from hypothesis import strategies as st
from torch import Tensor

from slackdlm.lattice.band import Batch, Columns, clamp_columns, gather_columns, target_band

NUM_TOKENS = 3
SLACK_ID = 3
VOCAB_SIZE = 4
MASK_ID = 7  # outside the vocabulary, so that the probabilities of all targets sum to 1
IDS = {"mask_id": MASK_ID, "slack_id": SLACK_ID}


class Problem(NamedTuple):
    """Arguments of the losses, in their order."""

    logits: Tensor
    canvas: Tensor
    targets: Tensor
    canvas_lengths: Tensor
    target_lengths: Tensor

    @property
    def batch(self) -> Batch:
        """The same without its logits, as the lattice takes it."""
        num_slack = max(0, int((self.canvas_lengths - self.target_lengths).max()))
        return Batch(*self[1:], **IDS, num_slack=num_slack)

    def sample(self, b: int) -> tuple[list[list[float]], list[int], list[int]]:
        """Logits, canvas and target of one sample without its padding, as the oracle takes them."""
        num_positions, num_tokens = int(self.canvas_lengths[b]), int(self.target_lengths[b])
        return (
            self.logits[b, :num_positions].tolist(),
            self.canvas[b, :num_positions].tolist(),
            self.targets[b, :num_tokens].tolist(),
        )


def draw_problem(
    seed: int,
    *,
    num_samples: int = 3,
    num_positions: int = 5,
    scale: float = 1.0,
    visible: float = 0.4,
    contradiction: float = 0.1,
) -> Problem:
    """A batch of unequal lengths; repeats, visible tokens and slack, at times no path at all."""
    generator = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=generator)

    shape = (num_samples, num_positions)
    logits = scale * torch.randn(*shape, VOCAB_SIZE, generator=generator, dtype=torch.float64)
    canvas = integers(0, SLACK_ID, *shape)  # behind the content: anything
    targets = integers(0, NUM_TOKENS - 1, *shape)
    canvas_lengths = integers(0, num_positions, num_samples)
    canvas_lengths[int(integers(0, num_samples - 1))] = num_positions
    target_lengths = torch.zeros_like(canvas_lengths)
    for b, length in enumerate(canvas_lengths.tolist()):
        target_lengths[b] = integers(0, length)
        content = torch.full((length,), SLACK_ID)
        places = torch.randperm(length, generator=generator)[: int(target_lengths[b])].sort().values
        content[places] = targets[b, : int(target_lengths[b])]
        if torch.rand((), generator=generator) < contradiction:
            content = integers(0, SLACK_ID, length)
        canvas[b, :length] = content
    masked = torch.rand(shape, generator=generator) >= visible
    canvas = torch.where(masked, MASK_ID, canvas)
    return Problem(logits, canvas, targets, canvas_lengths, target_lengths)


def problems(**fixed: object) -> st.SearchStrategy[Problem]:
    """Random batches; logit scale 0, 1 or 20, visible share 0, 0.4 or 1."""
    choices = {
        "seed": st.integers(0, 2**32 - 1),
        "scale": st.sampled_from([0.0, 1.0, 20.0]),
        "visible": st.sampled_from([0.0, 0.4, 0.4, 1.0]),
    } | {name: st.just(value) for name, value in fixed.items()}
    return st.builds(draw_problem, **choices)


def expected_loss(problem: Problem, mode: str = "slack") -> Tensor:
    """The losses by enumeration, float64."""
    losses = [
        oracles.slack_ctc(*problem.sample(b), mode=mode, **IDS)
        for b in range(len(problem.canvas_lengths))
    ]
    return torch.tensor(losses, dtype=torch.float64)


def expected_gradient(problem: Problem, mode: str = "slack") -> Tensor:
    """The gradients of the losses' sum by enumeration, 0 in the padding."""
    gradient = torch.zeros_like(problem.logits)
    for b, length in enumerate(problem.canvas_lengths.tolist()):
        if length:
            rows = oracles.slack_ctc_gradient(*problem.sample(b), mode=mode, **IDS)
            gradient[b, :length] = torch.tensor(rows, dtype=torch.float64)
    return gradient


def columns_of(problem: Problem) -> Columns:
    """Log-probabilities of every lattice edge, as kernels take them."""
    return gather_columns(problem.logits.log_softmax(2), problem.batch)


def map_columns(function: Callable[[Tensor], Tensor], columns: Columns) -> Columns:
    """Columns with the function applied to every tensor."""
    return Columns(*(function(tensor) for tensor in columns))


def draw_long_columns(num_positions: int, num_tokens: int, *, kind: str, visible: float) -> Columns:
    """Float32 columns of one long sample: ``random``, ``cold`` (slack 14 nats down) or ``peaky``."""
    mask_id, slack_id = 1001, 1000
    generator = torch.Generator().manual_seed(num_tokens)
    num_slack = num_positions - num_tokens
    targets = torch.randint(0, 1000, (1, num_tokens), generator=generator)
    canvas = torch.full((1, num_positions), slack_id)
    places = torch.randperm(num_positions, generator=generator)[:num_tokens].sort().values
    canvas[0, places] = targets[0]
    token = torch.randn(1, num_positions, num_slack + 1, generator=generator)
    slack = torch.randn(1, num_positions, generator=generator)
    if kind == "cold":
        slack -= 14.0
    if kind == "peaky":
        token, slack = 10.0 * token, 10.0 * slack
    is_visible = torch.rand(canvas.shape, generator=generator) < visible
    canvas = torch.where(is_visible, canvas, mask_id)
    lengths = torch.tensor([num_positions]), torch.tensor([num_tokens])
    batch = Batch(canvas, targets, *lengths, mask_id, slack_id, num_slack)
    return clamp_columns(token, slack, target_band(batch), batch)
