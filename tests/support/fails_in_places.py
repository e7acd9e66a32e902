"""``slackdlm train`` whose work fails in the processes named: ``fails_in_places.py KIND RANK...``; the others wait."""

import os
import sys

from accelerate import PartialState

import slackdlm.cli
from slackdlm.cli import train
from slackdlm.errors import ConfigError

KINDS = {"user": ConfigError("no room here"), "defect": ValueError("no room here")}


def work(_: object) -> None:
    others = PartialState(cpu=True)
    if os.environ["RANK"] in sys.argv[2:]:
        raise KINDS[sys.argv[1]]
    others.wait_for_everyone()


train._train = work
sys.exit(slackdlm.cli.main(["train", "recipe.yaml"]))
