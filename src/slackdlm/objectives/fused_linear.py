"""What does a batch cost, from hidden states on? Output layer, cross-entropy, slack-CTC in one."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slackdlm.errors import ConfigError
from slackdlm.lattice import Posteriors, band_posteriors
from slackdlm.lattice.band import Columns, clamp_columns, target_band
from slackdlm.objectives import checks
from slackdlm.objectives.vocabulary_pass import Supervision, VocabularyLoss, default_chunk_size

_TILE = 256  # positions whose band logits are computed in one product
_TILE_GPU = 1024  # there a tile costs its twenty launches, not its arithmetic


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
    slack_row: Float[Tensor, " D"] | None = None,
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
        slack_row: Takes the place of the output layer's row of ``<slack>``: a row that is trained
            under a frozen output layer, whose own gradient is then never computed.
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
    checks.check_scores(where, hidden, name="hidden", axes="B L D")
    _check_layer(where, hidden, head_weight, name="head_weight", axes="V D")
    if slack_row is not None:
        _check_layer(where, hidden, slack_row, name="slack_row", axes="D")
    if chunk_size is not None and chunk_size < 1:
        raise ConfigError(f"{where}: chunk_size must be at least 1, got {chunk_size}")
    problem = checked_problem(
        where,
        (canvas, targets, canvas_lengths, target_lengths),
        shape=(hidden.shape[0], hidden.shape[1], head_weight.shape[0]),
        mask_id=mask_id,
        slack_id=slack_id,
        clean=clean,
        ctc_weight=ctc_weight,
        ce_weights=ce_weights,
        sample_weights=sample_weights,
    )
    dtype = _product_dtype(hidden)
    if not torch.is_grad_enabled():
        hidden, head_weight = hidden.detach(), head_weight.detach()
        slack_row = None if slack_row is None else slack_row.detach()
    with torch.autocast(hidden.device.type, enabled=False):
        row = head_weight[slack_id] if slack_row is None else slack_row
        supervision, lattice_loss = _supervise(
            problem,
            *(tensor.detach().to(dtype) for tensor in (hidden, head_weight, row)),
            needs_posteriors=any(
                tensor is not None and tensor.requires_grad
                for tensor in (hidden, head_weight, slack_row)
            ),
        )
        return VocabularyLoss.apply(
            hidden,
            head_weight,
            slack_row,
            lattice_loss,
            supervision,
            dtype,
            chunk_size or default_chunk_size(head_weight.shape[0], hidden.device),
        )  # pyright: ignore[reportReturnType]


class Problem(NamedTuple):
    """A batch that may be a loss, its defaults filled in."""

    canvas: Int[Tensor, "B L"]
    targets: Int[Tensor, "B S"]
    canvas_lengths: Int[Tensor, " B"]
    target_lengths: Int[Tensor, " B"]
    mask_id: int
    slack_id: int
    num_slack: int
    """``K``, the largest slack budget."""
    clean: Int[Tensor, "B L"]
    ctc_weight: float
    ce_weights: Float[Tensor, "B L"]
    """Float64; 0 at visible positions."""
    sample_weights: Float[Tensor, " B"]
    """Float64."""


def _check_layer(where: str, hidden: Tensor, layer: Tensor, *, name: str, axes: str) -> None:
    checks.check_scores(where, layer, name=name, axes=axes)
    if layer.shape[-1] != hidden.shape[2]:
        raise ConfigError(
            f"{where}: hidden has {hidden.shape[2]} features but {name} has {layer.shape[-1]}"
        )


def checked_problem(
    where: str,
    batch: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    shape: tuple[int, int, int],
    mask_id: int,
    slack_id: int,
    clean: Tensor | None,
    ctc_weight: float,
    ce_weights: Tensor | None,
    sample_weights: Tensor | None,
) -> Problem:
    """The batch of ``(B, L, V)``, if nothing is wrong with it."""
    num_samples, num_positions, vocab_size = shape
    if not 0 <= ctc_weight <= 1:
        raise ConfigError(f"{where}: ctc_weight must lie in [0, 1], got {ctc_weight}")
    if clean is None and (ctc_weight < 1 or ce_weights is not None):
        raise ConfigError(
            f"{where}: cross-entropy has weight (ctc_weight {ctc_weight}, ce_weights "
            f"{'given' if ce_weights is not None else 'not given'}) but clean is missing; pass it"
        )
    checks.check_ids(where, mask_id=mask_id, slack_id=slack_id, vocab_size=vocab_size)
    checks.check_batch_shapes(where, *batch, shape=shape[:2])
    canvas, _, canvas_lengths, target_lengths = batch
    if ce_weights is None:
        inside = checks.inside_lengths(canvas_lengths, num_positions)
        ce_weights = (1.0 - ctc_weight) * inside.double()
    checks.check_weights(where, ce_weights, shape[:2], name="ce_weights")
    if sample_weights is None:
        sample_weights = torch.ones(num_samples, device=canvas.device, dtype=torch.float64)
    checks.check_weights(where, sample_weights, shape[:1], name="sample_weights")
    supervised = (canvas == mask_id) & (ce_weights > 0)
    faults = checks.batch_faults(*batch, mask_id=mask_id, slack_id=slack_id, vocab_size=vocab_size)
    faults |= checks.weight_faults(ce_weights, name="ce_weights")
    faults |= checks.weight_faults(sample_weights, name="sample_weights")
    if clean is not None:
        checks.check_integers(where, clean, shape[:2], name="clean")
        faults |= checks.clean_faults(clean, supervised, mask_id=mask_id, vocab_size=vocab_size)
    budget = checks.largest_budget(canvas_lengths, target_lengths)
    return Problem(
        *batch,
        mask_id=mask_id,
        slack_id=slack_id,
        num_slack=checks.raise_first_fault(where, faults, budget),
        clean=canvas if clean is None else clean,
        ctc_weight=ctc_weight,
        ce_weights=ce_weights.double() * supervised,
        sample_weights=sample_weights.double(),
    )


def _product_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype of the matrix products: autocast's if it is on, else that of the hidden states."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def _supervise(
    problem: Problem,
    hidden: Float[Tensor, "B L D"],
    head_weight: Float[Tensor, "V D"],
    slack_row: Float[Tensor, " D"],
    *,
    needs_posteriors: bool,
) -> tuple[Supervision, Float[Tensor, " B"]]:
    """Soft targets and weights of every row, and the weighted lattice term of each sample's loss.

    On raw logits the loss is ``sum of log-sum-exps - log Z``: the pass adds the first, this the
    second.
    """
    num_samples, num_positions, _ = hidden.shape
    if problem.ctc_weight > 0:
        columns = lattice_columns(
            hidden,
            head_weight,
            slack_row,
            *problem[:4],
            num_slack=problem.num_slack,
            mask_id=problem.mask_id,
            slack_id=problem.slack_id,
        )
        lengths = problem.canvas_lengths, problem.target_lengths
        lattice = band_posteriors(*columns, *lengths, needs_posteriors=needs_posteriors)
    else:
        nothing = hidden.new_zeros(num_samples, num_positions, 1, dtype=torch.float32)
        lattice = Posteriors(torch.zeros_like(problem.sample_weights), nothing, nothing[:, :, 0])
    inside = checks.inside_lengths(problem.canvas_lengths, num_positions)
    masked = inside & (problem.canvas == problem.mask_id)
    supervision = Supervision(
        problem.ctc_weight * masked.double(),
        problem.ce_weights,
        problem.clean.long(),
        _padded_with_0(problem.targets, problem.target_lengths),
        lattice.token,
        lattice.slack,
        problem.slack_id,
    )
    weights = problem.sample_weights
    lattice_loss = -problem.ctc_weight * lattice.log_likelihood * weights
    is_possible = lattice.log_likelihood != -torch.inf
    return supervision.scaled(weights * is_possible), lattice_loss.where(weights > 0, 0.0)


def lattice_columns(
    hidden: Float[Tensor, "B L D"],
    head_weight: Float[Tensor, "V D"],
    slack_row: Float[Tensor, " D"],
    canvas: Int[Tensor, "B L"],
    targets: Int[Tensor, "B S"],
    canvas_lengths: Int[Tensor, " B"],
    target_lengths: Int[Tensor, " B"],
    *,
    num_slack: int,
    mask_id: int,
    slack_id: int,
) -> Columns:
    """As `slackdlm.lattice.band.gather_columns`, of raw logits that are computed for the band alone.

    ``slack_row`` is the output layer's row of ``<slack>``, or what takes its place. Float32 (float64 for float64
    input).
    """
    targets = _padded_with_0(targets, target_lengths)
    band = target_band(
        targets, canvas_lengths, target_lengths, num_positions=canvas.shape[1], num_slack=num_slack
    )
    token = band_logits(hidden, head_weight, targets, num_slack=num_slack)
    slack = (hidden @ slack_row).to(token.dtype)
    return clamp_columns(token, slack, band, canvas, mask_id=mask_id, slack_id=slack_id)


def _padded_with_0(
    targets: Int[Tensor, "B S"], target_lengths: Int[Tensor, " B"]
) -> Int[Tensor, "B S"]:
    return targets.long() * checks.inside_lengths(target_lengths, targets.shape[1])


def band_logits(
    hidden: Float[Tensor, "B L D"],
    head_weight: Float[Tensor, "V D"],
    targets: Int[Tensor, "B S"],
    *,
    num_slack: int,
) -> Float[Tensor, "B L band"]:
    """Logit of ``targets[i - k]`` at position ``i`` for every slack budget, without the other logits.

    Works on tiles of positions: a tile can only emit the tokens of a window ``num_slack`` wider
    than itself.

    Args:
        hidden: Last hidden states.
        head_weight: Output layer in the same dtype.
        targets: Valid ids, padded with any valid id.
        num_slack: ``K``; the band is ``K + 1`` wide.

    Returns:
        Float32 logits (float64 for float64 input); 0 where ``i - k`` is no token.
    """
    num_samples, num_positions, _ = hidden.shape
    num_tokens = targets.shape[1]
    dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    band = torch.zeros(num_samples, num_positions, num_slack + 1, dtype=dtype, device=hidden.device)
    slack_used = torch.arange(num_slack + 1, device=hidden.device)
    tile = _TILE if hidden.device.type == "cpu" else _TILE_GPU
    for start in range(0, num_positions, tile):
        stop = min(start + tile, num_positions)
        low, high = max(0, start - num_slack), min(num_tokens, stop)
        if low >= high:
            break  # every later tile lies behind the last token it could emit
        window = head_weight[targets[:, low:high]]  # [B, high - low, D]
        logits = torch.bmm(hidden[:, start:stop], window.transpose(1, 2)).to(dtype)
        token_index = torch.arange(start, stop, device=hidden.device)[:, None] - slack_used
        exists = (token_index >= low) & (token_index < high)
        index = (token_index - low).clamp(0, high - low - 1).expand(num_samples, -1, -1)
        band[:, start:stop] = logits.gather(2, index) * exists
    return band
