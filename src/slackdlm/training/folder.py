"""May a run start in this folder, and where? A new folder, or exactly the run that is already in it."""

import logging
from pathlib import Path
from typing import Any, NamedTuple, cast

from slackdlm import strict_json
from slackdlm.atomic import write_json
from slackdlm.config import flatten
from slackdlm.errors import CheckpointError, ConfigError, counted, one_line
from slackdlm.training import checkpoints, journal
from slackdlm.training.engine import engine
from slackdlm.training.processes import this_process

_LOG = logging.getLogger(__name__)
_NUM_NAMED = 4
# The samples' hashes say what is trained on, wherever it lies; the others change nothing but rounding.
_MAY_CHANGE = frozenset(
    {
        "data.train",
        "data.eval",
        "training.micro_batch_size",
        "training.gradient_checkpointing",
        "training.keep_checkpoints",
        "training.report_to",
        "training.max_loss_growth",
    }
)


class Start(NamedTuple):
    """Where a run begins."""

    checkpoint: Path | None
    """The checkpoint to resume from; None: step 0."""
    step: int
    """Steps already done."""
    result: dict[str, Any] | None
    """The recorded result, if the run is finished."""


def check_folder(folder: Path, *, resume: bool) -> None:
    """Is there a run exactly if one is to be resumed? Asked once more before a model is loaded.

    Raises:
        ConfigError: If a new run finds an old one.
        CheckpointError: If there is nothing to resume.
    """
    is_there = (folder / "run.json").exists()
    if is_there and not resume:
        raise ConfigError(
            f"{folder}: holds a run already; resume it, delete it or choose another output"
        )
    if resume and not is_there:
        raise CheckpointError(
            f"{folder}: there is no run to resume (run.json is missing); give the output of a run, or"
            " begin one without resuming"
        )


def begin(folder: Path, run: dict[str, Any], *, resume: bool) -> Start:
    """Claim a folder for a new run, or find where the run in it goes on.

    Args:
        folder: The run's folder.
        run: What ``run.json`` is to hold; its ``recipe`` and ``samples`` make the run's identity.
        resume: Continue the run in the folder.

    Returns:
        The start. On resuming, ``log.jsonl`` has been cut back to it. What fits a run into memory or watches
        it may differ from the record, and where the same samples lie; it is named in the log.

    Raises:
        ConfigError: If a new run finds an old one, or a resumed one differs; names the keys.
        CheckpointError: If there is nothing to resume, or ``run.json`` is damaged.
    """
    check_folder(folder, resume=resume)
    file = folder / "run.json"
    if not resume:
        this_process().wait_for_everyone()
        if this_process().is_main_process:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_json(file, run)
            except OSError as error:
                raise ConfigError(
                    f"{folder}: cannot be written ({error.strerror}); choose another output"
                ) from error
        this_process().wait_for_everyone()
        return Start(checkpoint=None, step=0, result=None)
    recorded = _read_record(file)
    changes = _refuse_other_run(recorded, run, folder=folder)
    if recorded["status"] == "finished":
        if this_process().is_main_process:
            _LOG.warning("%s: the run is finished already; nothing is trained or changed", folder)
        return Start(checkpoint=None, step=0, result=recorded["result"])
    if changes and this_process().is_main_process:
        _LOG.warning("%s: resumed with %s", folder, ", ".join(changes))
    checkpoint = checkpoints.latest_complete(folder / "checkpoints")
    if checkpoint is not None:
        _refuse_other_engine(checkpoint)
    elif this_process().is_main_process:
        _LOG.warning("%s: no complete checkpoint; the run starts again at step 0", folder)
    step = checkpoints.checkpoint_step(checkpoint) if checkpoint else 0
    if this_process().is_main_process:
        # A run that starts again evaluates again before its first step.
        _cut_back(folder / "log.jsonl", step=step if checkpoint else -1)
    this_process().wait_for_everyone()
    return Start(checkpoint=checkpoint, step=step, result=None)


def _cut_back(log: Path, *, step: int) -> None:
    journal.cut_back(log, step=step)
    num_steps = sum("loss" in record for record in journal.read(log))
    if num_steps < step:
        _LOG.warning(
            "%s: holds %d of the first %s; the losses of the others are missing from the curve and"
            " from the mean",
            log,
            num_steps,
            counted(step, "step"),
        )


def _read_record(file: Path) -> dict[str, Any]:
    """What :func:`begin` and training wrote."""
    try:
        record = strict_json.parse(file.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not {"recipe", "samples", "status"} <= record.keys():
            raise ValueError("expected recipe, samples and status")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{file}: not the record of a run ({one_line(error)}); restore it, or start a new run"
        ) from error
    return cast("dict[str, Any]", record)


def _refuse_other_run(recorded: dict[str, Any], run: dict[str, Any], *, folder: Path) -> list[str]:
    """What differs and may."""
    old, new = (
        {**flatten(record["recipe"]), **flatten(record["samples"], where="samples")}
        for record in (recorded, run)
    )
    missing = object()
    keys = sorted(k for k in old.keys() | new.keys() if old.get(k, missing) != new.get(k, missing))
    changes = {
        key: f"{one_line(key, longest=60)} (was {_shown(old.get(key))}, now {_shown(new.get(key))})"
        for key in keys
    }
    refused = [change for key, change in changes.items() if key not in _MAY_CHANGE]
    if refused:
        more = f" and {len(refused) - _NUM_NAMED} more" if len(refused) > _NUM_NAMED else ""
        longer = (
            "; to train longer, begin a new run from its model (model.path, or model.adapter)"
            if "training.steps" in changes
            else ""
        )
        raise ConfigError(
            f"{folder}: cannot resume a different run; these differ: {', '.join(refused[:_NUM_NAMED])}"
            f"{more}; resume with the recipe and data that it was begun with, or choose another output"
            f"{longer}"
        )
    return list(changes.values())


def _refuse_other_engine(checkpoint: Path) -> None:
    """Each engine reads its own checkpoints alone; DeepSpeed those of as many processes."""
    old, new = checkpoints.written_by(checkpoint), engine()
    if old != new:
        raise ConfigError(
            f"{checkpoint}: written {_under(old)}, but this run is launched {_under(new)}; resume with"
            " the accelerate configuration that it was begun with"
        )
    written, launched = checkpoints.num_writers(checkpoint), this_process().num_processes
    if new == "DEEPSPEED" and written != launched:
        raise ConfigError(
            f"{checkpoint}: written by {counted(written, 'process')}, but this run is launched with"
            f" {counted(launched, 'process')}; DeepSpeed resumes with --num_processes {written} alone"
        )


def _under(name: str | None) -> str:
    return f"under {name}" if name else "with whole weights on each process"


def _shown(value: object) -> str:
    return one_line(repr(value), longest=40)
