"""What does a batch cost, from hidden states on? Output layer, cross-entropy, slack-CTC in one."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slackdlm.errors import ConfigError
from slackdlm.lattice import band_log_likelihood
from slackdlm.lattice.band import gather_columns
from slackdlm.objectives import checks
from slackdlm.objectives.masked_ce import position_ce


def fused_linear_slack_ctc_loss(
    hidden: Float[Tensor, "B L D"],
    head_weight: Float[Tensor, "V D"],
    canvas: Int[Tensor, "B L"],
    targets: Int[Tensor, "B S"],
    canvas_lengths: Int[Tensor, " B"],
    target_lengths: Int[Tensor, " B"],
    *,
    mask_id: int,
    slack_id: int,
    clean: Int[Tensor, "B L"] | None = None,
    ctc_weight: float = 1.0,
    ce_weights: Float[Tensor, "B L"] | None = None,
    sample_weights: Float[Tensor, " B"] | None = None,
    chunk_size: int | None = None,
) -> Float[Tensor, " B"]:
    """``sample_weights * (ctc_weight * slack-CTC + sum_i ce_weights_i * CE_i)``, in nats.

    Args:
        hidden: Last hidden states, any float dtype.
        head_weight: Output layer without bias; ``logits = hidden @ head_weight.T``.
        canvas: The canvas as the model saw it, ``mask_id`` where masked. Masked positions behind
            ``canvas_lengths`` count for CE alone, and only where ``ce_weights`` says so.
        targets: Token ids, right-padded with anything.
        canvas_lengths: Content positions of each canvas.
        target_lengths: Tokens of each target.
        mask_id: Id that marks a masked position.
        slack_id: Id of ``<slack>``.
        clean: The canvas before noise; needed where CE has weight.
        ctc_weight: ``w`` in ``[0, 1]``. With 0 the lattice is skipped.
        ce_weights: Weight of each masked position's CE, constants. Default ``1 - ctc_weight``
            inside ``canvas_lengths`` and 0 behind it.
        sample_weights: Weight of each sample, constants; default 1. A sample of weight 0 is left
            out: its loss is 0 even if its target is impossible.
        chunk_size: Rows of logits held at a time; chosen by size if not given.

    Returns:
        One loss per sample. ``+inf`` with zero gradient where slack-CTC counts and its target is
        impossible.

    Raises:
        ConfigError: If a shape, a dtype, an id or a weight is wrong.

    References:
        arXiv 2601.22947 for the objective; the weighting and the single pass are ours.
    """
    where = "fused_linear_slack_ctc_loss"
    _check_options(where, hidden, head_weight, clean, ctc_weight, ce_weights, chunk_size)
    batch = (canvas, targets, canvas_lengths, target_lengths)
    num_samples, num_positions, _ = hidden.shape
    vocab_size = head_weight.shape[0]
    checks.check_ids(where, mask_id=mask_id, slack_id=slack_id, vocab_size=vocab_size)
    checks.check_batch_shapes(where, *batch, shape=(num_samples, num_positions))
    inside = checks.inside_lengths(canvas_lengths, num_positions)
    if ce_weights is None:
        ce_weights = inside * torch.tensor(1.0 - ctc_weight, device=hidden.device)
    checks.check_weights(where, ce_weights, (num_samples, num_positions), name="ce_weights")
    if sample_weights is None:
        sample_weights = torch.ones(num_samples, device=hidden.device)
    checks.check_weights(where, sample_weights, (num_samples,), name="sample_weights")
    supervised = (canvas == mask_id) & (ce_weights > 0)
    faults = checks.batch_faults(*batch, mask_id=mask_id, slack_id=slack_id, vocab_size=vocab_size)
    faults |= checks.weight_faults(ce_weights, name="ce_weights")
    faults |= checks.weight_faults(sample_weights, name="sample_weights")
    if clean is not None:
        checks.check_integers(where, clean, (num_samples, num_positions), name="clean")
        faults |= checks.clean_faults(clean, supervised, mask_id=mask_id, vocab_size=vocab_size)
    num_slack = checks.raise_first_fault(
        where, faults, checks.largest_budget(canvas_lengths, target_lengths)
    )
    logits = hidden @ head_weight.to(hidden.dtype).T
    logits = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    loss = logits.new_zeros(num_samples)
    if clean is not None:
        loss = loss + (ce_weights * position_ce(logits, clean, supervised)).sum(1)
    if ctc_weight > 0:
        columns = gather_columns(
            logits.log_softmax(2), *batch, num_slack=num_slack, mask_id=mask_id, slack_id=slack_id
        )
        loss = loss - ctc_weight * band_log_likelihood(*columns, canvas_lengths, target_lengths)
    counts = sample_weights > 0
    return torch.where(counts, torch.where(counts, loss, 0.0) * sample_weights, 0.0)


def _check_options(
    where: str,
    hidden: Tensor,
    head_weight: Tensor,
    clean: Tensor | None,
    ctc_weight: float,
    ce_weights: Tensor | None,
    chunk_size: int | None,
) -> None:
    checks.check_scores(where, hidden, name="hidden", axes="B L D")
    checks.check_scores(where, head_weight, name="head_weight", axes="V D")
    if hidden.shape[2] != head_weight.shape[1]:
        raise ConfigError(
            f"{where}: hidden has {hidden.shape[2]} features but head_weight takes "
            f"{head_weight.shape[1]}"
        )
    if not 0 <= ctc_weight <= 1:
        raise ConfigError(f"{where}: ctc_weight must lie in [0, 1], got {ctc_weight}")
    if clean is None and (ctc_weight < 1 or ce_weights is not None):
        raise ConfigError(
            f"{where}: cross-entropy has weight (ctc_weight {ctc_weight}, ce_weights "
            f"{'given' if ce_weights is not None else 'not given'}) but clean is missing; pass it"
        )
    if chunk_size is not None and chunk_size < 1:
        raise ConfigError(f"{where}: chunk_size must be at least 1, got {chunk_size}")
