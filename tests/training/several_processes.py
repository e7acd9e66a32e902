"""One run in as many processes as it is launched in: ``several_processes.py FOLDER OBJECTIVE JSON``."""

import json
import sys
from pathlib import Path

import torch
from arms import CANVAS_LENGTH, CE, MIXED, SLACK_CTC, made_samples, short, small_model

from slackdlm.training.run import train_samples

OBJECTIVES = {"ce": CE, "slack_ctc": SLACK_CTC, "mixed": MIXED}


def main(folder: str, objective: str, options: str) -> None:
    settings = json.loads(options)
    padding = settings.pop("padding", "fixed")
    samples = made_samples()
    train_samples(
        small_model(),
        samples,
        samples[:5],
        canvas_length=CANVAS_LENGTH,
        padding=padding,
        objective=OBJECTIVES[objective],
        training=short(**settings),
        output=Path(folder),
        resume=(Path(folder) / "run.json").exists(),
        progress=False,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
