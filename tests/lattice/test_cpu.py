import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from problems import Problem, columns_of, draw_long_columns, problems
from torch import Tensor

from slackdlm.errors import ConfigError
from slackdlm.lattice import band_log_likelihood, cpu, reference
from slackdlm.lattice.band import Columns

MASK_ID, SLACK_ID = 1001, 1000


@settings(max_examples=200)
@given(problem=problems(contradiction=0.2))
def test_the_kernel_equals_the_reference_on_every_edge(problem: Problem):
    columns = columns_of(problem)
    ours, expected = cpu.posteriors(columns), reference.posteriors(columns)
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-12)


def test_kernel_and_reference_answer_in_the_same_dtypes_and_without_a_graph():
    columns = draw_long_columns(8, 5, kind="random", visible=0.0)
    columns.token.requires_grad_()
    columns.slack.requires_grad_()
    for kernel in (cpu, reference):
        for wanted in (True, False):
            result = kernel.posteriors(columns, needs_posteriors=wanted)
            assert [part.dtype for part in result] == [torch.float64, torch.float32, torch.float32]
            assert bool(result.token.any()) is wanted
            assert not any(part.requires_grad for part in result)


def alpha_beta(columns: Columns) -> tuple[float, Tensor, Tensor]:
    """Log-likelihood and posteriors of one full-length sample by the textbook, in float64."""
    token, slack = columns.token[0].double().numpy(), columns.slack[0].double().numpy()
    num_positions, band = token.shape
    alpha = np.full((num_positions + 1, band + 1), -np.inf)  # one dead state in front
    beta = np.full((num_positions + 1, band + 1), -np.inf)  # and one behind
    alpha[0, 1] = beta[num_positions, band - 1] = 0.0
    for i in range(num_positions):
        alpha[i + 1, 1:] = np.logaddexp(alpha[i, 1:] + token[i], alpha[i, :-1] + slack[i])
    for i in reversed(range(num_positions)):
        beta[i, :-1] = np.logaddexp(beta[i + 1, :-1] + token[i], beta[i + 1, 1:] + slack[i])
    log_likelihood = alpha[-1, -1]
    token_posterior = np.exp(alpha[:-1, 1:] + token + beta[1:, :-1] - log_likelihood)
    slack_posterior = np.exp(alpha[:-1, 1:] + slack[:, None] + beta[1:, 1:] - log_likelihood)
    return (
        float(log_likelihood),
        torch.from_numpy(token_posterior),
        torch.from_numpy(slack_posterior.sum(1)),
    )


def check_long(num_positions: int, num_tokens: int, kind: str, visible: float) -> None:
    columns = draw_long_columns(num_positions, num_tokens, kind=kind, visible=visible)
    ours = cpu.posteriors(columns)
    log_likelihood, token, slack = alpha_beta(columns)
    assert ours.log_likelihood.item() == pytest.approx(log_likelihood, rel=1e-10)
    torch.testing.assert_close(ours.token[0].double(), token, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.slack[0].double(), slack, rtol=0, atol=1e-6)
    mass = ours.token.sum(2) + ours.slack
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["random", "cold", "peaky"])
@pytest.mark.parametrize("visible", [0.0, 0.5])
@pytest.mark.parametrize("num_tokens", [64, 256, 480])
def test_long_canvases_keep_their_posteriors_in_float32(num_tokens: int, kind: str, visible: float):
    check_long(512, num_tokens, kind, visible)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "cold", "peaky"])
@pytest.mark.parametrize("visible", [0.0, 0.5])
@pytest.mark.parametrize("num_tokens", [512, 2048, 3900])
def test_very_long_canvases_keep_their_posteriors_in_float32(
    num_tokens: int, kind: str, visible: float
):
    check_long(4096, num_tokens, kind, visible)


def test_many_samples_run_in_threads_and_give_what_each_gives_alone(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(cpu, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    drawn = [draw_long_columns(64, 40, kind="random", visible=0.3 * b) for b in range(3)]
    batch = cpu.posteriors(Columns(*map(torch.cat, zip(*drawn, strict=True))))
    for b, columns in enumerate(drawn):
        alone = cpu.posteriors(columns)
        for ours, expected in zip(batch, alone, strict=True):
            torch.testing.assert_close(ours[b : b + 1], expected, rtol=0, atol=0)


@pytest.mark.parametrize(("column", "edge"), [("token", (0, 20, 5)), ("slack", (0, 20))])
def test_one_nan_score_gives_nan_and_never_a_number(column: str, edge: tuple[int, ...]):
    columns = draw_long_columns(40, 30, kind="random", visible=0.0)
    getattr(columns, column)[edge] = math.nan
    result = cpu.posteriors(columns)
    assert result.log_likelihood.isnan().all()
    assert result.token.isnan().all()


def test_the_log_likelihood_alone_costs_no_posteriors():
    columns = draw_long_columns(40, 30, kind="random", visible=0.3)
    with_posteriors = cpu.posteriors(columns)
    without = cpu.posteriors(columns, needs_posteriors=False)
    assert torch.equal(with_posteriors.log_likelihood, without.log_likelihood)


def test_a_second_derivative_is_refused():
    columns = draw_long_columns(8, 5, kind="random", visible=0.0)
    token = columns.token.requires_grad_()
    log_likelihood = band_log_likelihood(columns)
    with pytest.raises(ConfigError, match="second derivatives are not available"):
        torch.autograd.grad(log_likelihood.sum(), token, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_columns_are_refused(dtype: torch.dtype):
    columns = draw_long_columns(8, 5, kind="random", visible=0.0)
    with pytest.raises(ConfigError, match=r"float32 or float64, got torch\.b?float16"):
        band_log_likelihood(
            columns._replace(token=columns.token.to(dtype), slack=columns.slack.to(dtype))
        )
