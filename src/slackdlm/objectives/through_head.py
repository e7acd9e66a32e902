"""What does a batch cost where only the output layer itself can tell? A call of it for every few rows.

For output layers with an adapter on them, which are no matrix that
:func:`slackdlm.objectives.fused_linear.fused_linear_slack_ctc_loss` could take, and for evaluations. Of
the ``[B, L, V]`` logits a chunk at a time is held, and computed again in the backward pass.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from slackdlm.lattice import band_log_likelihood
from slackdlm.lattice.band import Columns, clamp_columns, target_band
from slackdlm.objectives.checks import Problem, Terms, checked_problem
from slackdlm.objectives.vocabulary_pass import default_chunk_size

Head = Callable[[Float[Tensor, "1 R D"]], Float[Tensor, "1 R V"]]


class Reading(NamedTuple):
    """A batch and what the model says of it, in nats."""

    problem: Problem
    columns: Columns
    """Of the lattice, visible positions clamped."""
    slack: Float[Tensor, "B L"]
    """Log-probability of ``<slack>`` at masked positions, 0 elsewhere."""
    clean: Float[Tensor, "B L"]
    """Log-probability of the clean token where cross-entropy has weight, else anything finite."""


def read_through(
    head: Head,
    hidden: Float[Tensor, "B L D"],
    terms: Terms,
    *,
    vocab_size: int,
    chunk_size: int | None = None,
) -> Reading:
    """The log-probabilities that losses and figures need, as one call of ``head`` for each chunk of rows.

    ``head`` makes ``vocab_size`` logits of each hidden state. All else is as for
    ``fused_linear_slack_ctc_loss``.

    Raises:
        ConfigError: If a shape, a dtype, an id or a weight is wrong.
    """
    shape = (hidden.shape[0], hidden.shape[1], vocab_size)
    problem = checked_problem("read_through", terms, shape)
    batch, band = problem.batch, target_band(problem.batch)
    has_ce = problem.ce_weights > 0
    others = [torch.full_like(problem.clean, batch.slack_id), problem.clean.where(has_ce, 0)]
    log_probs = _log_probs(
        head,
        hidden,
        torch.cat([band.ids, torch.stack(others, dim=2)], dim=2),
        problem.masked | has_ce,
        chunk_size=chunk_size or default_chunk_size(vocab_size, hidden.device),
    )
    token, slack, of_clean = log_probs[:, :, :-2], log_probs[:, :, -2], log_probs[:, :, -1]
    return Reading(problem, clamp_columns(token, slack, band, batch), slack, of_clean)


def losses_of(reading: Reading) -> Float[Tensor, " B"]:
    """As ``fused_linear_slack_ctc_loss``: one weighted loss per sample, in nats."""
    problem = reading.problem
    losses = -(problem.ce_weights * reading.clean.double()).sum(1)
    if problem.ctc_weight > 0:
        ctc = -band_log_likelihood(reading.columns).double()
        losses = (losses + problem.ctc_weight * ctc).where(ctc != torch.inf, torch.inf)
    weights = problem.sample_weights
    return (weights * losses).where(weights > 0, 0.0).to(reading.slack.dtype)


def _log_probs(
    head: Head,
    hidden: Float[Tensor, "B L D"],
    ids: Int[Tensor, "B L N"],
    needed: Bool[Tensor, "B L"],
    *,
    chunk_size: int,
) -> Float[Tensor, "B L N"]:
    """Of these ids at the needed positions, 0 elsewhere; float32 (float64 for float64 logits)."""

    def of_rows(states: Float[Tensor, "R D"], wanted: Int[Tensor, "R N"]) -> Float[Tensor, "R N"]:
        logits = head(states[None])[0]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits.gather(1, wanted) - logits.logsumexp(1, keepdim=True)

    rows = needed.flatten().nonzero()[:, 0]
    flat, flat_ids = hidden.flatten(0, 1), ids.flatten(0, 1)
    parts = [  # one at least: no weight may be left without a gradient
        checkpoint(of_rows, flat[part], flat_ids[part], use_reentrant=False)
        for part in rows.split(chunk_size)
    ]
    joined = torch.cat(parts)  # pyright: ignore[reportArgumentType] - checkpoint returns anything
    return joined.new_zeros(flat_ids.shape).index_copy(0, rows, joined).view(ids.shape)
