"""Runs in as many processes as this is launched in, each in its own folder: ``several_processes.py FOLDER``."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from arms import CE, MIXED, SLACK_CTC, short, train_made

from slackdlm.training.config import ObjectiveConfig
from slackdlm.training.draw import Padding

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
    train_made(
        folder,
        objective=run.objective,
        training=short(**settings),
        adapter=run.adapter,
        padding=run.padding,
    )


def main(folder: Path) -> None:
    for name in RUNS:
        train_here(name, folder / name)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
