"""What does a training step of LoRA cost at the size of LLaDA-8B? A part of ``gpu_check.py``."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from gpu_scale import Scale, peak_of, time_of, write
from measurement import spread
from torch import Tensor

from slackdlm.models.adapter import casts_by_autocast, new_adapter
from slackdlm.models.loaded import LoadedModel, recompute_activations
from slackdlm.training.config import ObjectiveConfig
from slackdlm.training.data import Sample
from slackdlm.training.draw import CanvasSpec, canvas_spec, collate
from slackdlm.training.step_loss import sample_losses
from slackdlm.training.stream import TrainStream


def check_training(loaded: LoadedModel, scale: Scale, output: Path) -> None:
    """Steps of LoRA on one sequence: fused CE, fused slack-CTC, and a plain loop with all logits."""
    # A trained row of the output layer would cost the plain loop a gradient of the whole layer.
    adapted = new_adapter(loaded, rank=16, alpha=32, dropout=0.0, train_slack=False)
    network: Any = adapted.model
    network.train()
    recompute_activations(network)
    # Autocast around the forward pass, as the Trainer has it: else the adapter multiplies in float32.
    network = Accelerator(mixed_precision="bf16", cpu=scale.device == "cpu").prepare_model(network)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    batch = partial(_batch, loaded, scale)

    def fused_step(drawn: dict[str, Tensor], spec: CanvasSpec) -> None:
        with casts_by_autocast(network, active=True):
            sample_losses(network, network, drawn, spec=spec, bf16=True).mean().backward()
        update()

    def plain_step(drawn: dict[str, Tensor], spec: CanvasSpec) -> None:
        logits = network(drawn["input_ids"], drawn["attention_mask"]).logits
        logits = logits[:, -spec.canvas_length :].float()
        losses = F.cross_entropy(logits.transpose(1, 2), drawn["clean"], reduction="none")
        masked = drawn["noisy"] == spec.mask_id
        ((losses * masked).sum(1) * drawn["loss_weights"]).mean().backward()
        update()

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    arms: dict[str, Callable[[], None]] = {
        "ce_plain": partial(plain_step, *batch(0.0)),
        "ce_fused": partial(fused_step, *batch(0.0)),
        "slack_ctc_fused": partial(fused_step, *batch(1.0)),
    }
    peaks = {name: peak_of(step, scale) for name, step in arms.items()}
    milliseconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(scale.repeats):  # in turn, so that a busy moment of the machine meets all arms
        for name, step in arms.items():
            milliseconds[name].append(time_of(step, scale))
    _report(milliseconds, peaks, scale, output)
    network.unload()


def _batch(
    loaded: LoadedModel, scale: Scale, ctc_weight: float
) -> tuple[dict[str, Tensor], CanvasSpec]:
    """One random sequence as an arm trains on it."""
    low, high = 8, loaded.mask_id
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(low, high, (scale.canvas_length,), generator=generator)
    num_target = scale.canvas_length * 3 // 4
    sample = Sample(
        source="random",
        prompt=tokens[: scale.prompt_length],
        response=tokens[:num_target].masked_fill(tokens[:num_target] == loaded.slack_id, low),
    )
    slack_ratio = (0.25, 0.25) if ctc_weight else (0.0, 0.0)
    objective = ObjectiveConfig(kind="mixed", ctc_weight=ctc_weight, slack_ratio=slack_ratio)
    spec = canvas_spec(loaded, canvas_length=scale.canvas_length, objective=objective)
    stream = TrainStream([sample], spec, num_steps=1, batch_size=1, seed=0, data_seed=0)
    drawn = collate([stream[0]], spec=spec)
    return {key: value.to(scale.device) for key, value in drawn.items()}, spec


def _report(
    milliseconds: dict[str, list[float]],
    peaks: dict[str, float | None],
    scale: Scale,
    output: Path,
) -> None:
    num_tokens = scale.prompt_length + scale.canvas_length
    rows: list[dict[str, object]] = []
    for name, times in milliseconds.items():
        p20, p50, p80 = spread(times)
        rows.append(
            {
                "arm": name,
                "num_positions": num_tokens,
                "p20_ms": round(p20, 2),
                "p50_ms": round(p50, 2),
                "p80_ms": round(p80, 2),
                "tokens_per_second": round(num_tokens / p50 * 1000, 1),
                "peak_gib": peaks[name],
                "repeats": scale.repeats,
            }
        )
        write(rows, output / "training_gpu.csv", scale)
