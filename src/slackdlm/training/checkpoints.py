"""Which checkpoints can be resumed from? Only sealed ones: their file sizes are written last."""

import json
import logging
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from slackdlm.atomic import write_json
from slackdlm.errors import CheckpointError, SlackDLMError, one_line
from slackdlm.training.processes import this_process

_LOG = logging.getLogger(__name__)
_SEAL = "complete.json"


def checkpoint_step(folder: Path) -> int:
    """Optimizer steps done, from the folder's name ``checkpoint-N``; -1 for any other name."""
    match = re.fullmatch(r"checkpoint-(\d+)", folder.name)
    return int(match[1]) if match else -1


def seal(folder: Path) -> None:
    """Mark a checkpoint as complete: the sizes of all its files, written after all of them."""
    write_json(folder / _SEAL, _sizes(folder))


def fault(folder: Path) -> str | None:
    """Why a checkpoint cannot be resumed from; None if it can."""
    try:
        seal: dict[str, int] = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "it was not finished"
    sizes = _sizes(folder)
    for name, size in seal.items():
        if sizes.get(name) != size:
            return f"{name} has {sizes.get(name, 0)} of {size} bytes"
    return None


@contextmanager
def loading(folder: str | Path | None) -> Generator[None]:
    """While it lasts, whatever goes wrong is the checkpoint's: its sizes fit, what is in it need not.

    Raises:
        CheckpointError: Naming the folder.
    """
    try:
        yield
    except SlackDLMError:
        raise
    except Exception as error:  # torch raises whatever damaged bytes lead to
        raise CheckpointError(
            f"{folder}: cannot be loaded ({type(error).__name__}: {one_line(error)}); remove this"
            " folder, and the run resumes from the checkpoint before it"
        ) from error


@contextmanager
def saving(folder: Path) -> Generator[None]:
    """While it lasts, whatever goes wrong is the disk's: libraries raise much else than OSError.

    Raises:
        CheckpointError: Naming the folder and the room left.
    """
    try:
        yield
    except SlackDLMError:
        raise
    except Exception as error:  # of a full disk torch says that positions do not fit
        room = shutil.disk_usage(next(one for one in folder.parents if one.is_dir())).free
        raise CheckpointError(
            f"{folder}: cannot be written ({type(error).__name__}: {one_line(error)}; {room / 1e9:.3g} GB"
            " are free there); make room, and resume the run"
        ) from error


def written_by(folder: Path) -> str | None:
    """The engine that divided the weights of a checkpoint, as accelerate calls it; None: whole weights."""
    if any(folder.glob("pytorch_model_fsdp*")):
        return "FSDP"
    return "DEEPSPEED" if (folder / "latest").is_file() else None


def num_writers(folder: Path) -> int:
    """Processes that wrote a checkpoint of DeepSpeed, each its share of the optimizer's state; else 0."""
    return sum(1 for _ in folder.glob("global_step*/*zero_pp_rank_*_optim_states.pt"))


def latest_complete(root: Path, *, up_to: int | None = None) -> Path | None:
    """Newest complete checkpoint, not after step ``up_to``, or None; torn ones are named in the log."""
    for folder in reversed(_by_step(root)):
        if up_to is not None and checkpoint_step(folder) > up_to:
            continue
        reason = fault(folder)
        if reason is None:
            return folder
        if this_process().is_main_process:
            _LOG.warning("%s is torn and skipped: %s", folder, reason)
    return None


def discard(folder: Path) -> None:
    """Remove a checkpoint, its seal first: a half-removed one is never taken for complete."""
    (folder / _SEAL).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def keep_newest(root: Path, count: int) -> None:
    """Remove all complete checkpoints but the newest ``count``, and torn ones but the newest.

    Raises:
        CheckpointError: If ``count`` is below 1.
    """
    if count < 1:
        raise CheckpointError(f"keep_checkpoints: expected at least 1, got {count}")
    folders = _by_step(root)
    complete = [folder for folder in folders if fault(folder) is None]
    for folder in folders:
        torn_and_old = folder not in complete and bool(complete) and folder != folders[-1]
        if folder in complete[:-count] or torn_and_old:
            discard(folder)


def _by_step(root: Path) -> list[Path]:
    folders = [folder for folder in root.glob("checkpoint-*") if checkpoint_step(folder) >= 0]
    return sorted(folders, key=checkpoint_step)


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != _SEAL)
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}
