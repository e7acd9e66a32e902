"""Ten lives of one run, each killed at a random moment of saving: ``killed_while_saving.py FOLDER``.

Prints a line of JSON per life: how it ended, the newest checkpoint that can be resumed from, and the
torn ones. Lives are forks, so that the imports are paid for once.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from arms import SLACK_CTC, made_samples, recipe_of, short, small_model

from slackdlm.training import checkpoints
from slackdlm.training.prepare import Prepared
from slackdlm.training.run import train
from slackdlm.training.trainer import SlackTrainer

TRAINING = short(steps=30, save_every=1, eval_every=0, keep_checkpoints=2)


def live(folder: Path, saving: int) -> None:
    """Train, and say in the pipe when saving begins."""
    save = SlackTrainer._save_checkpoint

    def announced(trainer: SlackTrainer, *arguments: object) -> None:
        os.write(saving, b"s")
        save(trainer, *arguments)  # type: ignore[arg-type]

    SlackTrainer._save_checkpoint = announced  # type: ignore[method-assign]
    try:
        finish(folder)
    finally:
        SlackTrainer._save_checkpoint = save  # type: ignore[method-assign]


def finish(folder: Path) -> None:
    """Train from wherever the run in the folder is."""
    train(
        recipe_of(SLACK_CTC, TRAINING),
        output=folder,
        prepared=Prepared(small_model(), made_samples(), []),
        resume=(folder / "run.json").exists(),
        progress=False,
    )


def main(folder: Path) -> None:
    rng = random.Random(5)
    for _ in range(10):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            live(folder, writer)
            os._exit(0)
        os.close(writer)
        for _ in range(rng.choice([2, 3])):
            os.read(reader, 1)
        time.sleep(rng.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(reader)
        root = folder / "checkpoints"
        last = checkpoints.latest_complete(root)
        torn = {f.name: checkpoints.fault(f) for f in root.iterdir() if checkpoints.fault(f)}
        killed = os.WIFSIGNALED(status)
        record = {"killed": killed, "last": last and last.name, "torn": torn}
        sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
