"""How good is the model now? The bound on fixed noise, by noise level, and what it makes of slack."""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from slackdlm.training.draw import collate
from slackdlm.training.model_alignment import aligned
from slackdlm.training.step_loss import evaluated_samples, sample_losses
from slackdlm.training.stream import NUM_EVAL_LEVELS, EvalStream


class Bound(NamedTuple):
    """An evaluation loss and its parts."""

    total: float
    """Nats per response token, the padding's loss included."""
    by_time: list[float]
    """The same over the draws of each quarter of diffusion time, from clean to masked; ``total`` is
    their mean."""
    slack_share: float | None
    """Expected share of ``<slack>`` among the masked positions of the content; None without slack."""
    slack_share_drawn: float | None
    """The share that the draws put there."""
    alignment_entropy: float | None
    """Mean entropy, in nats, of what stands at a masked position given the target."""


@torch.no_grad()
def evaluation_bound(
    network: PreTrainedModel | PeftModel,
    stream: EvalStream,
    accelerator: Accelerator,
    *,
    batch_size: int,
    bf16: bool,
) -> Bound:
    """The bound over all processes, each of which takes its share of the draws.

    Args:
        network: In evaluation mode.
        stream: The draws.
        accelerator: Knows devices and processes.
        batch_size: Draws per forward pass and process.
        bf16: As in training.

    Returns:
        The bound, on every process.
    """
    has_slack = stream.spec.objective.slack_ratio[1] > 0
    sums = torch.zeros(2 * NUM_EVAL_LEVELS + 4, dtype=torch.float64, device=accelerator.device)
    for start in range(0, len(stream), batch_size * accelerator.num_processes):
        first = start + batch_size * accelerator.process_index
        indices = range(first, min(first + batch_size, len(stream)))
        # Sharded weights are gathered by all processes together: none may sit out a pass.
        draws = [stream[i] for i in indices] or [replace(stream[0], loss_weight=0.0)]
        batch = {k: v.to(accelerator.device) for k, v in collate(draws, spec=stream.spec).items()}
        if "uniforms" in batch:
            batch = aligned(network, network, batch, spec=stream.spec, bf16=bf16)
        if has_slack:
            losses, alignment = evaluated_samples(network, batch, spec=stream.spec, bf16=bf16)
            parts = torch.stack(
                [
                    alignment.slack_probability,
                    _drawn_slack(batch, stream),
                    alignment.entropy,
                    alignment.num_masked,
                ]
            )
            if indices:
                sums[-4:] += parts.sum(1)
        else:
            losses = sample_losses(network, network, batch, spec=stream.spec, bf16=bf16)
        for row, index in enumerate(indices):
            sums[index % NUM_EVAL_LEVELS] += losses[row].double()
            sums[NUM_EVAL_LEVELS + index % NUM_EVAL_LEVELS] += draws[row].target_length
    gathered: Any = accelerator.reduce(sums, reduction="sum")
    return _bound(gathered.cpu(), has_slack=has_slack)


def _bound(sums: Float[Tensor, " N"], *, has_slack: bool) -> Bound:
    losses, tokens = sums[:NUM_EVAL_LEVELS], sums[NUM_EVAL_LEVELS:-4]
    probability, drawn, entropy, num_masked = (float(value) for value in sums[-4:])
    shown = has_slack and num_masked > 0
    return Bound(
        total=float(losses.sum() / tokens.sum()),
        by_time=(losses / tokens).tolist(),
        slack_share=probability / num_masked if shown else None,
        slack_share_drawn=drawn / num_masked if shown else None,
        alignment_entropy=entropy / num_masked if shown else None,
    )


def _drawn_slack(batch: dict[str, Tensor], stream: EvalStream) -> Float[Tensor, " B"]:
    is_masked = batch["noisy"] == stream.spec.mask_id
    return (is_masked & (batch["clean"] == stream.spec.slack_id)).sum(1).double()


def metrics_of(ce: Bound, objective: Bound) -> dict[str, float]:
    """Names of the figures as logs and loggers have them; what is missing is left out."""
    quarters = [f"eval_ce_t{25 * i:02d}_{25 * (i + 1)}" for i in range(NUM_EVAL_LEVELS)]
    figures = {
        "eval_ce": ce.total,
        "eval_objective": objective.total,
        **dict(zip(quarters, ce.by_time, strict=True)),
        "eval_slack_share": objective.slack_share,
        "eval_slack_share_drawn": objective.slack_share_drawn,
        "eval_alignment_entropy": objective.alignment_entropy,
    }
    return {name: value for name, value in figures.items() if value is not None}
