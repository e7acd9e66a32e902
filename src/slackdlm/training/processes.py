"""Which process is this, among those that a launcher started?"""

import os

import torch
from accelerate import DistributedType, PartialState

from slackdlm.errors import ConfigError


def on_cpu() -> bool:
    """Whether this machine has no accelerator; its processes then talk through gloo."""
    return not torch.accelerator.is_available()


def this_process() -> PartialState:
    """Rank, number of processes and barriers; joins the others on the first call."""
    return PartialState(cpu=on_cpu())


def check_sharding(found: DistributedType) -> None:
    """Raise unless the weights are divided over the processes where the launcher was told so.

    Args:
        found: What accelerate made of its configuration.

    Raises:
        ConfigError: If it was to divide them and does not: on a CPU it takes DDP without a word.
    """
    for variable, engine in (
        ("ACCELERATE_USE_FSDP", DistributedType.FSDP),
        ("ACCELERATE_USE_DEEPSPEED", DistributedType.DEEPSPEED),
    ):
        if os.environ.get(variable, "false").lower() == "true" and found != engine:
            raise ConfigError(
                f"accelerate: its configuration asks for {engine.value}, but it has set up"
                f" {found.value}; on a CPU accelerate divides no weights: use `torchrun"
                " --nproc-per-node N -m slackdlm.cli train RECIPE` there"
            )
