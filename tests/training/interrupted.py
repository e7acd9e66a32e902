"""A run in its own process, so that a test can kill it: ``interrupted.py RECIPE OUTPUT``."""

import sys

from slackdlm.training.config import load_recipe
from slackdlm.training.run import train

if __name__ == "__main__":
    train(load_recipe(sys.argv[1]), output=sys.argv[2], progress=False)
