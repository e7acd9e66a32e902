"""Pure maths of the slack lattice: no model, no config. The device picks the kernel."""

import torch
from jaxtyping import Float
from torch import Tensor

from slackdlm.lattice.band import Columns
from slackdlm.lattice.posteriors import DifferentiableLattice, Posteriors, check_precision

__all__ = ["Posteriors", "band_log_likelihood", "band_posteriors"]


def band_log_likelihood(columns: Columns) -> Float[Tensor, " B"]:
    """Log-probability, in nats, that independently filled positions collapse to the target.

    The same quantity as `slackdlm.lattice.reference.band_log_likelihood`, from the fastest kernel
    of the device: numba on the CPU, Triton on CUDA, the reference elsewhere.

    Returns:
        Log-likelihood per sample; ``-inf`` with zero gradient where no path exists.

    Raises:
        ConfigError: If the columns are half precision, or on a second backward.
    """
    if not torch.is_grad_enabled():
        columns = columns._replace(token=columns.token.detach(), slack=columns.slack.detach())
    return DifferentiableLattice.apply(band_posteriors, *columns)  # pyright: ignore[reportReturnType]


def band_posteriors(columns: Columns, *, needs_posteriors: bool = True) -> Posteriors:
    """Log-likelihood and the posterior probability of every lattice edge.

    Args:
        columns: Log-probabilities, or raw logits.
        needs_posteriors: False skips the backward recursion; the posteriors then mean nothing.

    Returns:
        Log-likelihoods in float64 and posteriors in the dtype of the scores. Where there is no path the
        log-likelihood is ``-inf`` and the posteriors are 0. NaN scores give NaN.

    Raises:
        ConfigError: If the columns are half precision.
    """
    check_precision(columns.token, name="columns")
    if columns.token.device.type == "cpu":
        from slackdlm.lattice import cpu as kernel  # numba takes a second to import
    elif columns.token.device.type == "cuda":
        from slackdlm.lattice import triton_kernel as kernel
    else:
        from slackdlm.lattice import reference as kernel
    return kernel.posteriors(columns, needs_posteriors=needs_posteriors)
