"""Which process is this, among those that a launcher started?"""

import torch
from accelerate import PartialState


def on_cpu() -> bool:
    """Whether this machine has no accelerator; its processes then talk through gloo."""
    return not torch.accelerator.is_available()


def this_process() -> PartialState:
    """Rank, number of processes and barriers; joins the others on the first call."""
    return PartialState(cpu=on_cpu())
