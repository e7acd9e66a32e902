"""Pure maths of the slack lattice: no model, no config. The device picks the kernel."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slackdlm.lattice.posteriors import DifferentiableLattice, Posteriors, check_precision

__all__ = ["Posteriors", "band_log_likelihood", "band_posteriors"]


def band_log_likelihood(
    token_log_probs: Float[Tensor, "B L band"],
    slack_log_probs: Float[Tensor, "B L"],
    canvas_lengths: Int[Tensor, " B"],
    target_lengths: Int[Tensor, " B"],
) -> Float[Tensor, " B"]:
    """Log-probability, in nats, that independently filled positions collapse to the target.

    The same quantity as `slackdlm.lattice.reference.band_log_likelihood`, from the fastest kernel
    of the device: numba on the CPU, Triton on CUDA, the reference elsewhere.

    Args:
        token_log_probs: Entry ``[i, k]`` is the log-probability of ``y[i - k]`` at position ``i``,
            ``-inf`` where there is no such token. Float32 or float64.
        slack_log_probs: Log-probability of ``<slack>``.
        canvas_lengths: Positions of each sample, at most ``L``.
        target_lengths: Tokens of each sample.

    Returns:
        Log-likelihood per sample; ``-inf`` with zero gradient where no path exists.

    Raises:
        ConfigError: If the columns are half precision, or on a second backward.
    """
    if not torch.is_grad_enabled():
        token_log_probs, slack_log_probs = token_log_probs.detach(), slack_log_probs.detach()
    return DifferentiableLattice.apply(
        band_posteriors, token_log_probs, slack_log_probs, canvas_lengths, target_lengths
    )  # pyright: ignore[reportReturnType]


def band_posteriors(
    token_scores: Float[Tensor, "B L band"],
    slack_scores: Float[Tensor, "B L"],
    canvas_lengths: Int[Tensor, " B"],
    target_lengths: Int[Tensor, " B"],
    *,
    needs_posteriors: bool = True,
) -> Posteriors:
    """Log-likelihood and the posterior probability of every lattice edge.

    Args:
        token_scores: Columns as `band_log_likelihood` takes them; raw logits will do, since a
            constant per position moves the log-likelihood and leaves the posteriors.
        slack_scores: Score of ``<slack>``.
        canvas_lengths: Positions of each sample, at most ``L``.
        target_lengths: Tokens of each sample.
        needs_posteriors: False skips the backward recursion; the posteriors then mean nothing.

    Returns:
        Log-likelihoods in float64 and posteriors in the dtype of the scores. Where there is no path the
        log-likelihood is ``-inf`` and the posteriors are 0. NaN scores give NaN.

    Raises:
        ConfigError: If the columns are half precision.
    """
    check_precision(token_scores, name="columns")
    if token_scores.device.type == "cpu":
        from slackdlm.lattice import cpu as kernel  # numba takes a second to import
    elif token_scores.device.type == "cuda":
        from slackdlm.lattice import triton_kernel as kernel
    else:
        from slackdlm.lattice import reference as kernel
    return kernel.posteriors(
        token_scores,
        slack_scores,
        canvas_lengths,
        target_lengths,
        needs_posteriors=needs_posteriors,
    )
