"""A user's file is the old one or the whole new one, whenever the process dies. All files are written here.

Only what grows line by line over a run, and is read back up to its last whole line, is appended to where it lies.
"""

import errno
import json
import os
from contextlib import suppress
from pathlib import Path


def check_writable(path: Path) -> None:
    """Ask before long work whether `write_bytes` may write there; nothing is made or touched.

    Raises:
        OSError: It names the file; its ``strerror`` says what is in the way.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "it is a device or a pipe", str(path))
    folder = next(parent for parent in path.parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is no folder", str(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"no permission to write in {folder}", str(path))


def write_bytes(path: Path, content: bytes) -> None:
    """Make the folder and write the file: a draft beside it, put on the disk, then renamed.

    Raises:
        OSError: If it cannot be written; it names the file, which is left as it was.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as stream:
            stream.write(content)
            stream.flush()
            put_on_disk(stream.fileno())
        draft.replace(path)
    except BaseException as error:
        with suppress(OSError):  # there may be none
            draft.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def put_on_disk(number: int) -> None:
    """Sync a file where its file system can: some mounts over a network cannot."""
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def write_text(path: Path, text: str) -> None:
    """UTF-8 with line feeds, as `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: object, *, sort_keys: bool = False) -> None:
    """One indented JSON value, as `write_bytes`; ValueError for NaN and infinities, which JSON has not."""
    text = json.dumps(content, indent=2, allow_nan=False, sort_keys=sort_keys)
    write_text(path, text + "\n")
