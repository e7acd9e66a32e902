"""How likely is it that filling the masks and collapsing gives the target?"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slackdlm.collapse import CollapseMode
from slackdlm.errors import ConfigError
from slackdlm.lattice import band_log_likelihood
from slackdlm.lattice.band import gather_columns
from slackdlm.lattice.graves import graves_log_likelihood
from slackdlm.objectives.checks import Terms, check_floating, checked_problem


def slack_ctc_loss(
    logits: Float[Tensor, "B L V"],
    canvas: Int[Tensor, "B L"],
    targets: Int[Tensor, "B S"],
    canvas_lengths: Int[Tensor, " B"],
    target_lengths: Int[Tensor, " B"],
    *,
    mask_id: int,
    slack_id: int,
    collapse: CollapseMode = "slack",
) -> Float[Tensor, " B"]:
    """Negative log-probability, in nats, that filling the masks and collapsing gives the target.

    Each masked position is filled independently from its softmax; visible positions stay as they
    are. With no slack budget this is `masked_ce_loss`, exactly.

    Args:
        logits: Unnormalised scores of any float dtype; half precision is raised to float32 inside.
        canvas: The canvas as the model saw it, ``mask_id`` where masked. May show slack.
        targets: Token ids, right-padded with anything.
        canvas_lengths: Content positions of each canvas; what lies behind is ignored.
        target_lengths: Tokens of each target.
        mask_id: Id that marks a masked position.
        slack_id: Id of ``<slack>``.
        collapse: The map that defines the target; ``"graves"`` merges repeats and is there for the
            ablation.

    Returns:
        One unweighted loss per sample, at least 0. ``+inf`` with zero gradient where no filling
        gives the target: it is longer than the canvas, or the visible tokens contradict it.

    Raises:
        ConfigError: If a shape, a dtype or an id is wrong.

    References:
        arXiv 2601.22947 v2 for the objective in words; conditioning on the visible positions is
        ours.
    """
    where = "slack_ctc_loss"
    if collapse not in ("slack", "graves"):
        raise ConfigError(f"{where}: unknown collapse {collapse!r}; use 'slack' or 'graves'")
    check_floating(where, "logits", logits, "B L V")
    num_samples, num_positions, vocab_size = logits.shape
    terms = Terms(canvas, targets, canvas_lengths, target_lengths, mask_id, slack_id)
    batch = checked_problem(where, terms, (num_samples, num_positions, vocab_size)).batch
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    log_probs = logits.log_softmax(dim=2, dtype=dtype)
    if collapse == "graves":
        return -graves_log_likelihood(log_probs, batch)
    return -band_log_likelihood(gather_columns(log_probs, batch))
