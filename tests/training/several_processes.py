"""Runs in as many processes as this is launched in: ``several_processes.py FOLDER``.

Each run of ``RUNS`` goes to its own folder; then a few plain steps with weights sharded by FSDP2,
whose gathered weights go to ``fsdp.safetensors``.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from arms import CANVAS_LENGTH, CE, MIXED, SLACK_CTC, made_samples, short, small_model
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from slackdlm.models.adapter import new_adapter
from slackdlm.training.config import ObjectiveConfig
from slackdlm.training.run import canvas_spec, train_samples
from slackdlm.training.step_loss import sample_losses
from slackdlm.training.stream import Padding, TrainStream, collate

TOKENS = ObjectiveConfig(kind="slack_ctc", slack_ratio=(0.0, 0.5), loss_norm="token")


class Run(NamedTuple):
    objective: ObjectiveConfig
    padding: Padding
    micro_batch_size: int | None = None
    adapter: bool = False


RUNS = {
    "slack_ctc": Run(SLACK_CTC, "fixed"),
    "slack_ctc_accumulated": Run(SLACK_CTC, "fixed", 2),
    "mixed_llada": Run(MIXED, "llada", 2),
    "tokens_unpadded": Run(TOKENS, "none"),
    "tokens_unpadded_accumulated": Run(TOKENS, "none", 2),
    "ce_adapter": Run(CE, "fixed", adapter=True),
    "slack_ctc_adapter_accumulated": Run(SLACK_CTC, "fixed", 2, adapter=True),
}


def train_here(name: str, folder: Path, **changes: Any) -> None:
    run = RUNS[name]
    settings = {"steps": 12, "micro_batch_size": run.micro_batch_size} | changes
    samples, loaded = made_samples(), small_model()
    if run.adapter:
        loaded = new_adapter(loaded, rank=2, alpha=4, dropout=0)
    train_samples(
        loaded,
        samples,
        samples[:5],
        canvas_length=CANVAS_LENGTH,
        padding=run.padding,
        objective=run.objective,
        training=short(**settings),
        output=folder,
        resume=(folder / "run.json").exists(),
        progress=False,
    )


def plain_steps(*, rank: int, num_processes: int) -> dict[str, Tensor]:
    """Weights after three steps of plain gradient descent, sharded if there are several processes."""
    loaded = small_model()
    model: Any = loaded.model
    spec = canvas_spec(loaded, canvas_length=CANVAS_LENGTH, objective=SLACK_CTC)
    stream = TrainStream(made_samples(), spec, num_steps=3, batch_size=8, seed=0, data_seed=0)
    if num_processes > 1:
        mesh = init_device_mesh("cpu", (num_processes,))
        for block in model.model.transformer["blocks"]:
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        fully_shard(model, mesh=mesh, reshard_after_forward=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    share = 8 // num_processes
    for step in range(3):
        first = 8 * step + rank * share
        batch = collate([stream[n] for n in range(first, first + share)], spec=spec)
        sample_losses(model, model, batch, spec=spec).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    weights: dict[str, Any] = model.state_dict()
    return {k: v.full_tensor() if num_processes > 1 else v for k, v in weights.items()}


def main(folder: Path) -> None:
    for name in RUNS:
        train_here(name, folder / name)
    rank = torch.distributed.get_rank()
    weights = plain_steps(rank=rank, num_processes=torch.distributed.get_world_size())
    if rank == 0:
        save_file(weights, folder / "fsdp.safetensors")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
