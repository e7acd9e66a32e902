"""Runs under FSDP2 or ZeRO-3 in as many processes as this is launched in: ``divided_processes.py ENGINE FOLDER``.

With names of :data:`RUNS` behind that it does these alone, or goes on with what ``FOLDER`` holds of them.

The settings are those of ``recipes/accelerate``, read by accelerate's own launcher. accelerate has FSDP2 divide
weights over GPUs alone, so it is **patched** here to take a CPU that talks through gloo for one; DeepSpeed
divides them over CPUs as it is.
"""

import json
import logging
import os
import shutil
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import DistributedType, PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from arms import CANVAS_LENGTH, CE, MIXED, SLACK_CTC, short, small_model, train_made
from test_run import undo
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from slackdlm.models.loading import save_model
from slackdlm.training.config import DataConfig, ObjectiveConfig, Recipe
from slackdlm.training.model_config import LoraRecipe, ModelConfig
from slackdlm.training.processes import this_process
from slackdlm.training.run import train

RECIPES = Path(__file__).parents[2] / "recipes" / "accelerate"
CHECKPOINTED = {"save_every": 2, "keep_checkpoints": 9}


class Run(NamedTuple):
    objective: ObjectiveConfig
    training: dict[str, Any]
    adapter: bool = False
    from_files: bool = False
    """Through :func:`train`, so that a process may leave reading the weights to the first."""


RUNS = {
    "full": Run(SLACK_CTC, CHECKPOINTED, from_files=True),
    "full_recomputed": Run(MIXED, {"micro_batch_size": 2, "gradient_checkpointing": True}),
    "adapter": Run(SLACK_CTC, CHECKPOINTED, adapter=True, from_files=True),
    "adapter_accumulated": Run(CE, {"micro_batch_size": 2}, adapter=True),
    "full_bf16": Run(SLACK_CTC, {"bf16": True}),
}


class Divided(NamedTuple):
    recipe: Path
    name: str
    """As accelerate calls the engine."""
    shard: str
    """A file of ``checkpoint-4``, written by the second process."""


ENGINES = {
    "fsdp2": Divided(RECIPES / "fsdp2.yaml", "FSDP", "pytorch_model_fsdp_0/__1_0.distcp"),
    "zero3": Divided(
        RECIPES / "deepspeed-zero3.yaml",
        "DEEPSPEED",
        "global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt",
    ),
}


def train_here(name: str, folder: Path) -> None:
    """Six steps, evaluated after the third and the last; goes on where the folder's run is."""
    run = RUNS[name]
    unset_hf_deepspeed_config()  # a run before this one would have PEFT look for its GPU
    if run.from_files:
        train_from_files(run, folder)
        return
    train_made(
        folder,
        objective=run.objective,
        training=short(**run.training),
        adapter=run.adapter,
    )


def train_from_files(run: Run, folder: Path) -> None:
    """The small model and some words as files beside the run's folder, named as seen from there."""
    with chdir(folder.parent):
        if this_process().is_main_process and not Path("data.jsonl").exists():
            save_model(small_model(), "start")
            rows = [
                {"prompt": f"w{i % 7}", "response": f"w{i % 5} " * (1 + i % 9)} for i in range(28)
            ]
            Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        this_process().wait_for_everyone()
        lora = LoraRecipe(rank=2, alpha=4) if run.adapter else None
        recipe = Recipe(
            name="files",
            model=ModelConfig(path="start", lora=lora),
            data=DataConfig(train="data.jsonl", max_prompt_length=16, canvas_length=CANVAS_LENGTH),
            objective=run.objective,
            training=short(eval_samples=5, **run.training),
        )
        resume = Path(folder.name, "run.json").exists()
        train(recipe, output=folder.name, resume=resume, progress=False)


def break_off(whole: Path, broken: Path, *, shard: str) -> None:
    """A copy of a finished run that died after step 4, the shard of one process torn."""
    shutil.copytree(whole, broken)
    undo(broken, step=4)
    file = broken / "checkpoints" / "checkpoint-4" / shard
    file.write_bytes(file.read_bytes()[:100])


def take_cpus_for_gpus() -> None:
    """Patches accelerate: this process drives one of several GPUs, its device is the CPU."""

    def backend(*_: Any, **__: Any) -> tuple[str, DistributedType]:
        return "gloo", DistributedType.MULTI_GPU

    def device(state: PartialState) -> None:
        state.device = torch.device("cpu")

    PartialState._prepare_backend = backend  # type: ignore[method-assign]
    PartialState.set_device = device  # type: ignore[method-assign]
    torch.distributed.init_process_group("gloo")


def launcher_settings(recipe: Path, *options: str) -> dict[str, str]:
    """The environment that ``accelerate launch --config_file`` gives to each process."""
    line = ["--config_file", str(recipe), "--num_processes", "2", *options, "script"]
    arguments, file, _ = _validate_launch_command(launch_command_parser().parse_args(line))
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ",".join(file.deepspeed_config)
        arguments.main_process_port = 0  # it would look whether 29500 is taken
        _, settings = prepare_deepspeed_cmd_env(arguments)
    else:
        settings = prepare_multi_gpu_env(arguments)
    return {k: v for k, v in settings.items() if k.startswith(("ACCELERATE_", "FSDP_"))}


def main(engine: str, folder: Path, *names: str) -> None:
    recipe, _, shard = ENGINES[engine]
    os.environ |= launcher_settings(recipe)
    if engine == "fsdp2":
        take_cpus_for_gpus()
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"
    is_main = this_process().is_main_process
    if is_main:
        logging.basicConfig(filename=folder / "warnings.log", level=logging.WARNING)
    for name in names or RUNS:
        train_here(name, folder / name)
    for name in () if names else ("full", "adapter"):
        if is_main:
            break_off(folder / name, folder / f"{name}_resumed", shard=shard)
        torch.distributed.barrier()
        train_here(name, folder / f"{name}_resumed")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
