"""Run by test_triton_kernel.py in a process of its own: on a GPU, or interpreted on the CPU."""

import math
import os

import pytest
import torch
from hypothesis import given, settings
from problems import (
    Problem,
    columns_of,
    draw_long_columns,
    expected_loss,
    map_columns,
    problems,
)

from slackdlm.errors import ConfigError
from slackdlm.lattice import cpu, reference, triton_kernel
from slackdlm.lattice.band import Columns
from slackdlm.lattice.posteriors import Posteriors

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


def by_triton(columns: Columns, *, needs_posteriors: bool = True) -> Posteriors:
    """The kernel on its device, results brought back."""
    there = map_columns(lambda tensor: tensor.to(DEVICE), columns)
    result = triton_kernel.posteriors(there, needs_posteriors=needs_posteriors)
    return Posteriors(*(tensor.cpu() for tensor in result))


@settings(max_examples=25)
@given(problem=problems(contradiction=0.2))
def test_reference_cpu_and_triton_agree_with_the_enumeration(problem: Problem):
    columns = columns_of(problem)
    expected = reference.posteriors(columns)
    torch.testing.assert_close(
        -expected.log_likelihood, expected_loss(problem), rtol=1e-11, atol=1e-12
    )
    for kernel in (cpu.posteriors, by_triton):
        ours = kernel(columns)
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("kind", ["random", "cold", "peaky"])
def test_float32_scores_keep_their_posteriors(kind: str):
    columns = draw_long_columns(48, 30, kind=kind, visible=0.3)
    ours = by_triton(columns)
    expected = reference.posteriors(columns.in_float64())
    torch.testing.assert_close(ours.log_likelihood, expected.log_likelihood, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.token.double(), expected.token, rtol=0, atol=2e-6)
    torch.testing.assert_close(ours.slack.double(), expected.slack, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("column", "edge"), [("token", (0, 6, 2)), ("slack", (0, 6))])
def test_one_nan_score_gives_nan(column: str, edge: tuple[int, ...]):
    columns = draw_long_columns(12, 8, kind="random", visible=0.0)
    getattr(columns, column)[edge] = math.nan
    assert by_triton(columns).log_likelihood.isnan().all()


def test_the_log_likelihood_alone_is_the_same():
    columns = draw_long_columns(12, 8, kind="random", visible=0.3)
    with_posteriors = by_triton(columns)
    without = by_triton(columns, needs_posteriors=False)
    assert torch.equal(with_posteriors.log_likelihood, without.log_likelihood)


def test_lengths_need_not_lie_side_by_side():
    columns = draw_long_columns(12, 8, kind="random", visible=0.3)
    there = map_columns(lambda x: torch.cat([x, x]).to(DEVICE), columns)
    apart = [torch.stack([x, x + 1], dim=1).int()[:, 0] for x in there[2:]]
    ours = triton_kernel.posteriors(Columns(*there[:2], *apart))
    torch.testing.assert_close(ours, triton_kernel.posteriors(there))


def test_a_budget_beyond_the_registers_is_refused():
    band = triton_kernel.MAX_BLOCK + 1
    lengths = torch.tensor([band - 1]), torch.tensor([0])
    with pytest.raises(ConfigError, match="slack budget of 8192 exceeds the 8191 states"):
        by_triton(Columns(torch.zeros(1, 1, band), torch.zeros(1, 1), *lengths))
