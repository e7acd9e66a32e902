"""What does a batch cost, from hidden states on? Output layer, cross-entropy, slack-CTC in one."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slackdlm.errors import ConfigError
from slackdlm.lattice import Posteriors, band_posteriors
from slackdlm.lattice.band import Columns, clamp_columns, target_band
from slackdlm.objectives.checks import Problem, Terms, check_floating, checked_problem
from slackdlm.objectives.vocabulary_pass import (
    Layer,
    Supervision,
    VocabularyLoss,
    default_chunk_size,
)

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
    batch = canvas, targets, canvas_lengths, target_lengths, mask_id, slack_id
    terms = Terms(*batch, clean, ctc_weight, ce_weights, sample_weights)
    return fused_loss(Layer(hidden, head_weight, slack_row), terms, chunk_size=chunk_size)


def fused_loss(layer: Layer, terms: Terms, *, chunk_size: int | None = None) -> Float[Tensor, " B"]:
    """`fused_linear_slack_ctc_loss`, its arguments as records."""
    where = "fused_linear_slack_ctc_loss"
    _check_layer(where, layer)
    if chunk_size is not None and chunk_size < 1:
        raise ConfigError(f"{where}: chunk_size must be at least 1, got {chunk_size}")
    hidden, vocab_size = layer.hidden, layer.head.shape[0]
    num_samples, num_positions, _ = hidden.shape
    problem = checked_problem(where, terms, (num_samples, num_positions, vocab_size))
    dtype = _product_dtype(hidden)
    if not torch.is_grad_enabled():
        layer = layer.detached()
    with torch.autocast(hidden.device.type, enabled=False):
        supervision, lattice_loss = _supervise(
            problem,
            layer.detached().to(dtype),
            needs_posteriors=any(x is not None and x.requires_grad for x in layer),
        )
        chunk_size = chunk_size or default_chunk_size(vocab_size, hidden.device)
        return VocabularyLoss.apply(*layer, lattice_loss, supervision, dtype, chunk_size)  # pyright: ignore[reportReturnType]


def _check_layer(where: str, layer: Layer) -> None:
    check_floating(where, "hidden", layer.hidden, "B L D")
    named = [("head_weight", layer.head, "V D"), ("slack_row", layer.slack_row, "D")]
    for name, weight, axes in named:
        if weight is None:
            continue
        check_floating(where, name, weight, axes)
        if weight.shape[-1] != layer.hidden.shape[2]:
            raise ConfigError(
                f"{where}: hidden has {layer.hidden.shape[2]} features but {name} has {weight.shape[-1]}"
            )


def _product_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype of the matrix products: autocast's if it is on, else that of the hidden states."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def _supervise(
    problem: Problem, layer: Layer, *, needs_posteriors: bool
) -> tuple[Supervision, Float[Tensor, " B"]]:
    """Soft targets and weights of every row, and the weighted lattice term of each sample's loss.

    On raw logits the loss is ``sum of log-sum-exps - log Z``: the pass adds the first, this the
    second.
    """
    if problem.ctc_weight > 0:
        columns = _lattice_columns(problem, layer)
        lattice = band_posteriors(columns, needs_posteriors=needs_posteriors)
    else:
        nothing = layer.hidden.new_zeros(*layer.hidden.shape[:2], 1, dtype=torch.float32)
        lattice = Posteriors(torch.zeros_like(problem.sample_weights), nothing, nothing[:, :, 0])
    supervision = Supervision(
        ctc_weights=problem.ctc_weight * problem.masked.double(),
        ce_weights=problem.ce_weights,
        clean=problem.clean.long(),
        targets=problem.batch.targets,
        token_posterior=lattice.token,
        slack_posterior=lattice.slack,
        slack_id=problem.batch.slack_id,
    )
    weights = problem.sample_weights
    lattice_loss = -problem.ctc_weight * lattice.log_likelihood * weights
    is_possible = lattice.log_likelihood != -torch.inf
    return supervision.scaled(weights * is_possible), lattice_loss.where(weights > 0, 0.0)


def _lattice_columns(problem: Problem, layer: Layer) -> Columns:
    """As `slackdlm.lattice.band.gather_columns`, of raw logits that are computed for the band alone.

    Float32 (float64 for float64 input).
    """
    batch = problem.batch
    token = band_logits(layer.hidden, layer.head, batch.targets, num_slack=batch.num_slack)
    slack_row = layer.head[batch.slack_id] if layer.slack_row is None else layer.slack_row
    slack = (layer.hidden @ slack_row).to(token.dtype)
    return clamp_columns(token, slack, target_band(batch), batch)


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
