"""Where does the model itself put the slack? Canvases written anew along its own alignments.

Slack at random places makes a model learn every alignment of a target at once. Alignments drawn from
the posterior that the model gives them on the fully masked canvas are ones that it would choose.
"""

import torch
from torch import Tensor, nn

from slackdlm.lattice.paths import sample_path
from slackdlm.models.loaded import in_evaluation_mode
from slackdlm.training.draw import CanvasSpec
from slackdlm.training.step_loss import Readable, read_batch


@torch.no_grad()
def aligned(
    model: nn.Module,
    network: Readable,
    batch: dict[str, Tensor],
    *,
    spec: CanvasSpec,
    bf16: bool = False,
) -> dict[str, Tensor]:
    """The batch with its slack where the model would put it; what is masked stays masked.

    One forward pass without gradient over the fully masked canvases gives the lattice, from which
    an alignment of each target is drawn.

    Args:
        model: The network, or what a distributed engine wrapped around it.
        network: As in :func:`slackdlm.training.step_loss.sample_losses`.
        batch: From :func:`slackdlm.training.draw.collate`; its ``uniforms`` decide what is drawn.
        spec: The arm.
        bf16: As in training.

    Returns:
        A batch with other ``input_ids``, ``noisy`` and ``clean``. A sample without slack is as it was.

    References:
        Ours; Imputer (Saharia et al., 2020) trains on one alignment of an expert aligner.
    """
    clean, noisy = batch["clean"], batch["noisy"]
    num_positions = clean.shape[1]
    is_prompt = torch.ones_like(batch["input_ids"], dtype=torch.bool)
    is_prompt[:, -num_positions:] = False
    on_canvas = batch["attention_mask"].bool()
    blank = batch | {
        "input_ids": batch["input_ids"].where(is_prompt | ~on_canvas, spec.mask_id),
        "noisy": noisy.where(~on_canvas[:, -num_positions:], spec.mask_id),
    }
    with in_evaluation_mode(network):  # dropout's draws would depend on how often it is asked
        reading = read_batch(model, network, blank, spec=spec, bf16=bf16)
    lengths = batch["ctc_lengths"], batch["target_lengths"]
    paths = sample_path(reading.columns, uniforms=batch["uniforms"])
    # Position i holds target token number "tokens before i" unless slack stands there.
    places = (~paths.is_slack).long().cumsum(1) - 1
    tokens = batch["targets"].gather(1, places.clamp(0, batch["targets"].shape[1] - 1))
    inside = torch.arange(num_positions, device=clean.device) < lengths[0][:, None]
    is_moved = inside & paths.exists[:, None]
    clean = torch.where(is_moved, tokens.where(~paths.is_slack, spec.slack_id), clean)
    noisy = clean.where(noisy != spec.mask_id, spec.mask_id)
    input_ids = batch["input_ids"].clone()
    input_ids[:, -num_positions:] = noisy
    return batch | {"input_ids": input_ids, "noisy": noisy, "clean": clean}
