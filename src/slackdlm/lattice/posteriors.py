"""What every lattice kernel returns, and how it becomes a differentiable log-likelihood."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from slackdlm.errors import ConfigError
from slackdlm.lattice.band import Columns


class Posteriors(NamedTuple):
    """What the lattice says about a batch."""

    log_likelihood: Float[Tensor, " B"]
    """In nats, float64; ``-inf`` where there is no path."""
    token: Float[Tensor, "B L band"]
    """Entry ``[i, k]``: probability that ``y[i - k]`` stands at position ``i``; 0 where there is no path."""
    slack: Float[Tensor, "B L"]
    """Probability that ``<slack>`` stands at each position."""


def check_precision(scores: Tensor, *, name: str) -> None:
    """ConfigError unless scores are float32 or float64."""
    if scores.dtype not in (torch.float32, torch.float64):
        raise ConfigError(
            f"lattice: {name} must be float32 or float64, got {scores.dtype}; "
            "sums over thousands of positions need the precision, so upcast first"
        )


class DifferentiableLattice(torch.autograd.Function):
    """Log-likelihood whose gradient with respect to the scores is the posterior. Once differentiable."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        kernel: Callable[..., Posteriors],
        *columns: Tensor,
    ) -> Float[Tensor, " B"]:
        """Runs the kernel on `Columns`, backward recursion included if a gradient will be wanted."""
        result = kernel(Columns(*columns), needs_posteriors=any(ctx.needs_input_grad))
        ctx.save_for_backward(result.token, result.slack)
        return result.log_likelihood.to(columns[0].dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """The posteriors, scaled per sample."""
        if torch.is_grad_enabled():
            raise ConfigError(
                "lattice: second derivatives are not available from the kernels; drop create_graph=True "
                "or use slackdlm.lattice.reference.band_log_likelihood"
            )
        token, slack = ctx.saved_tensors
        (grad_output,) = grad_outputs
        return None, grad_output[:, None, None] * token, grad_output[:, None] * slack, None, None
