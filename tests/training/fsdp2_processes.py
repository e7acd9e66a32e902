"""Runs under FSDP2 in as many processes as this is launched in: ``fsdp2_processes.py FOLDER``.

The settings are those of ``recipes/accelerate/fsdp2.yaml``, read by accelerate's own launcher. accelerate
divides weights over GPUs alone, so it is **patched** here to take a CPU that talks through gloo for one.
"""

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import DistributedType, PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from arms import CANVAS_LENGTH, CE, MIXED, SLACK_CTC, made_samples, short, small_model
from test_run import undo

from slackdlm.models.adapter import new_adapter
from slackdlm.training.config import ObjectiveConfig
from slackdlm.training.run import train_samples

RECIPE = Path(__file__).parents[2] / "recipes" / "accelerate" / "fsdp2.yaml"
CHECKPOINTED = {"save_every": 2, "keep_checkpoints": 9}


class Run(NamedTuple):
    objective: ObjectiveConfig
    training: dict[str, Any]
    adapter: bool = False


RUNS = {
    "full": Run(SLACK_CTC, CHECKPOINTED),
    "full_recomputed": Run(MIXED, {"micro_batch_size": 2, "gradient_checkpointing": True}),
    "adapter": Run(SLACK_CTC, CHECKPOINTED, adapter=True),
    "adapter_accumulated": Run(CE, {"micro_batch_size": 2}, adapter=True),
    "full_bf16": Run(SLACK_CTC, {"bf16": True}),
}
TORN = "pytorch_model_fsdp_0/__1_0.distcp"


def train_here(name: str, folder: Path) -> None:
    """Six steps, evaluated after the third and the last; goes on where the folder's run is."""
    run = RUNS[name]
    samples, loaded = made_samples(), small_model()
    if run.adapter:
        loaded = new_adapter(loaded, rank=2, alpha=4, dropout=0)
    train_samples(
        loaded,
        samples,
        samples[:5],
        canvas_length=CANVAS_LENGTH,
        objective=run.objective,
        training=short(**run.training),
        output=folder,
        resume=(folder / "run.json").exists(),
        progress=False,
    )


def break_off(whole: Path, broken: Path) -> None:
    """A copy of a finished run that died after step 4, the shard of one process torn."""
    shutil.copytree(whole, broken)
    undo(broken, step=4)
    shard = broken / "checkpoints" / "checkpoint-4" / TORN
    shard.write_bytes(shard.read_bytes()[:100])


def take_cpus_for_gpus() -> None:
    """Patches accelerate: this process drives one of several GPUs, its device is the CPU."""

    def backend(*_: Any, **__: Any) -> tuple[str, DistributedType]:
        return "gloo", DistributedType.MULTI_GPU

    def device(state: PartialState) -> None:
        state.device = torch.device("cpu")

    PartialState._prepare_backend = backend  # type: ignore[method-assign]
    PartialState.set_device = device  # type: ignore[method-assign]
    torch.distributed.init_process_group("gloo")


def use_settings(recipe: Path) -> None:
    """The environment that ``accelerate launch --config_file`` gives to each process."""
    options = ["--config_file", str(recipe), "--num_processes", "2", "script"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(options))
    settings = prepare_multi_gpu_env(arguments)
    keys = {k for k in settings if k.startswith(("ACCELERATE_", "FSDP_"))}
    os.environ.update({k: settings[k] for k in keys})


def main(folder: Path) -> None:
    use_settings(RECIPE)
    take_cpus_for_gpus()
    is_main = torch.distributed.get_rank() == 0
    if is_main:
        logging.basicConfig(filename=folder / "warnings.log", level=logging.WARNING)
    for name in RUNS:
        train_here(name, folder / name)
    for name in ("full", "adapter"):
        if is_main:
            break_off(folder / name, folder / f"{name}_resumed")
        torch.distributed.barrier()
        train_here(name, folder / f"{name}_resumed")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
