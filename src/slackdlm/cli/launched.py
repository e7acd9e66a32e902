"""Which of the processes that torchrun or accelerate started says what went wrong?"""

import os
import time
from typing import NamedTuple

_STARTED = time.monotonic()
_LEAST, _MOST = 5.0, 60.0


class Rank(NamedTuple):
    """This process among those of a launch, as the launcher's variables say."""

    number: int
    """Among all, from 0."""
    num_processes: int
    """All processes; 1: there is no launcher."""
    speaks: bool
    """Whether it is the first of its machine."""


def this_rank() -> Rank:
    """Read without torch, as an error may come before anything is imported."""
    number, num_processes, local = (
        int(value) if (value := os.environ.get(name, "")).isdecimal() else default
        for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    return Rank(number, num_processes, speaks=num_processes == 1 or local == 0)


def leave_it_to_the_first() -> None:
    """Returns if this process has to report its failure itself.

    A failure of all is reported by the first process of the machine, whose end has the launcher end the
    others: they wait for that, as long as they have run so far, since the first may be that much slower,
    but 5 to 60 seconds. One that is still there has failed alone.
    """
    if not this_rank().speaks:
        time.sleep(min(_MOST, max(_LEAST, time.monotonic() - _STARTED)))
