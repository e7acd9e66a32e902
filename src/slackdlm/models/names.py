"""Is this a folder or a hub id? Told without importing anything that takes time."""

from pathlib import Path

from slackdlm.errors import CheckpointError


def is_hub_id(name_or_path: str | Path) -> bool:
    """Whether a name is to be asked of the hub; False for a folder that is there.

    Raises:
        CheckpointError: If it is neither a folder nor of the form ``owner/name``.
    """
    path = Path(name_or_path).expanduser()
    try:
        if path.is_dir():
            return False
        is_there = path.exists() or path.parent.is_dir()
    except (OSError, ValueError):  # too long, or with a NUL
        is_there = True
    name = str(name_or_path)
    is_path = isinstance(name_or_path, Path) or name.startswith((".", "/", "~"))
    if is_path or is_there or name.count("/") != 1 or not all(name.split("/")):
        raise CheckpointError(
            f"{name_or_path}: expected a checkpoint folder, found none; "
            "give an existing folder or a hub id such as GSAI-ML/LLaDA-8B-Instruct"
        )
    return True
