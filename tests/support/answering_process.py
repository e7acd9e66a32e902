"""Answering in processes that are killed: ``answering_process.py FOLDER`` writes one output per scenario.

One interpreter, whose forked children answer, so that the libraries are imported once.
"""

import os
import signal
import sys
import time
from pathlib import Path

from toy_questions import toy_model, toy_questions

from slackdlm.sampling.answering import Shard, answer_questions
from slackdlm.sampling.intervention import ShiftIntervention
from slackdlm.sampling.sampler import Sampler, SamplerConfig


def start(output: Path, *, batch_size: int, shard: Shard) -> int:
    """A child that answers; its process id."""
    child = os.fork()
    if child:
        return child
    config = SamplerConfig(canvas_length=8, steps=4, temperature=1.0, seed=1, batch_size=batch_size)
    status = 1
    try:
        answer_questions(
            Sampler(toy_model(), config, ShiftIntervention(0.2, seed=1)),
            toy_questions(11),
            output,
            shard=shard,
            on_answers=lambda count: time.sleep(0.03),
        )
        status = 0
    finally:
        os._exit(status)


def finish(*children: int) -> None:
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def kill_when(folder: Path, *, num_items: int, child: int) -> None:
    """SIGKILL once so many answers are recorded."""
    while sum(file.read_text().count("\n") for file in folder.glob("*.jsonl")) < num_items:
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def main(folder: Path) -> None:
    alone = Shard(0, 1)
    finish(start(folder / "whole.jsonl", batch_size=16, shard=alone))

    resumed = folder / "resumed.jsonl"
    journal = folder / "resumed.jsonl.journal"
    for num_items in (3, 9):
        child = start(resumed, batch_size=2, shard=alone)
        kill_when(journal, num_items=num_items, child=child)
    assert not resumed.exists()
    finish(start(resumed, batch_size=3, shard=alone))

    sharded = folder / "sharded.jsonl"
    child = start(sharded, batch_size=1, shard=Shard(0, 3))
    kill_when(folder / "sharded.jsonl.journal", num_items=2, child=child)
    finish(*(start(sharded, batch_size=4, shard=Shard(rank, 2)) for rank in range(2)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
