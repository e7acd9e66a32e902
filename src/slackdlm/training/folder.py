"""May a run start in this folder, and where? A new folder, or exactly the run that is already in it."""

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.parsing import flatten
from slackdlm.training import checkpoints, journal
from slackdlm.training.processes import this_process

_LOG = logging.getLogger(__name__)


class Start(NamedTuple):
    """Where a run begins."""

    checkpoint: Path | None
    """The checkpoint to resume from; None: step 0."""
    step: int
    """Steps already done."""
    result: dict[str, Any] | None
    """The recorded result, if the run is finished."""


def begin(folder: Path, run: dict[str, Any], *, resume: bool) -> Start:
    """Claim a folder for a new run, or find where the run in it goes on.

    Args:
        folder: The run's folder.
        run: What ``run.json`` is to hold; its ``recipe`` and ``samples`` make the run's identity.
        resume: Continue the run in the folder.

    Returns:
        The start. On resuming, ``log.jsonl`` has been cut back to it.

    Raises:
        ConfigError: If a new run finds an old one, or a resumed one differs; names the keys.
        CheckpointError: If there is nothing to resume.
    """
    file = folder / "run.json"
    if not resume:
        if file.exists():
            raise ConfigError(f"{folder}: holds a run already; resume it or choose another output")
        this_process().wait_for_everyone()
        if this_process().is_main_process:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                checkpoints.write_json(file, run)
            except OSError as error:
                raise ConfigError(
                    f"{folder}: cannot be written ({error.strerror}); choose another output"
                ) from error
        this_process().wait_for_everyone()
        return Start(checkpoint=None, step=0, result=None)
    if not file.exists():
        raise CheckpointError(f"{folder}: there is no run to resume (run.json is missing)")
    recorded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    _refuse_other_run(recorded, run, folder=folder)
    if recorded["status"] == "finished":
        return Start(checkpoint=None, step=0, result=recorded["result"])
    checkpoint = checkpoints.latest_complete(folder / "checkpoints")
    if checkpoint is None:
        _LOG.warning("%s: no complete checkpoint; the run starts again at step 0", folder)
    step = checkpoints.checkpoint_step(checkpoint) if checkpoint else 0
    if this_process().is_main_process:
        journal.cut_back(folder / "log.jsonl", step=step)
    this_process().wait_for_everyone()
    return Start(checkpoint=checkpoint, step=step, result=None)


def _refuse_other_run(recorded: dict[str, Any], run: dict[str, Any], *, folder: Path) -> None:
    old, new = (
        {**flatten(record["recipe"]), **flatten(record["samples"], where="samples")}
        for record in (recorded, run)
    )
    differing = [
        f"{key} (was {old.get(key)!r}, now {new.get(key)!r})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if differing:
        raise ConfigError(
            f"{folder}: cannot resume a different run; these differ: {', '.join(differing)}"
        )
