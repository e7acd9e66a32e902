"""``python -m slackdlm.cli``, for launchers that start modules."""

import sys

from slackdlm.cli import main

sys.exit(main())
