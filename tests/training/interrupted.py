"""One deterministic run in its own process, so that a test can kill it: ``interrupted.py RECIPE OUTPUT``."""

import sys
from dataclasses import asdict

from slackdlm.training.config import load_recipe
from slackdlm.training.run import train

if __name__ == "__main__":
    result = train(
        load_recipe(sys.argv[1]), output=sys.argv[2], resume="--resume" in sys.argv, progress=False
    )
    sys.stdout.write(repr(asdict(result)))
