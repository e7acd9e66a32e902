"""Where does a checkpoint lie? In a folder, or on the hub, from which it is downloaded once."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from slackdlm.errors import CheckpointError, one_line

HUB_ERRORS = (OSError, ValueError, HfHubHTTPError)
"""What a download raises."""
_DOWNLOADED = ("*.json", "*.jinja", "merges.txt", "vocab.txt", "*.model")
# The first that fits: some of these classes derive from others below.
_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (GatedRepoError, "access must be asked for on its page first, then set HF_TOKEN"),
    (
        RepositoryNotFoundError,
        "the hub has none of that name, or it is private and HF_TOKEN is not set",
    ),
    (RevisionNotFoundError, "it has no such revision"),
    (OfflineModeIsEnabled, "HF_HUB_OFFLINE is set and it is not in the local cache"),
    (LocalEntryNotFoundError, "the hub cannot be reached and it is not in the local cache"),
    (EntryNotFoundError, "it holds no such file"),
    (HFValidationError, "that is no name the hub knows"),
    (HfHubHTTPError, "the hub answered with an error"),
)


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


def locate(name_or_path: str | Path, *, with_weights: bool = True) -> Path:
    """The local folder of a checkpoint; a hub id is downloaded first, weights as safetensors only.

    Without its weights a hub id costs a few megabytes. ``HF_HUB_OFFLINE=1`` restricts hub ids to
    what is in the local cache.

    Raises:
        CheckpointError: If there is no such folder and the hub does not have it either.
    """
    if not is_hub_id(name_or_path):
        return Path(name_or_path).expanduser()
    patterns = [*_DOWNLOADED, *(["*.safetensors"] if with_weights else [])]
    try:
        return Path(snapshot_download(str(name_or_path), allow_patterns=patterns))
    except HUB_ERRORS as error:
        raise CheckpointError(
            f"{name_or_path}: there is no such folder, and the hub did not give it"
            f" ({hub_reason(error)}); check the name and the network, or give a folder"
        ) from error


def hub_reason(error: BaseException) -> str:
    """One line about a failed download; the hub's own errors fill a screen."""
    return next(
        (reason for kind, reason in _REASONS if isinstance(error, kind)),
        f"{type(error).__name__}: {one_line(error, longest=120)}",
    )
