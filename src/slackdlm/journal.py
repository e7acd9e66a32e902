"""What is already paid for? A folder of JSON lines, one a finished item, keyed by the content that decided it.

Every process appends to a file of its own and reads the files of all others, so any number of them share the work, on
one machine or on several, without a lock. ``kill -9`` at any time loses nothing that was recorded.
"""

import hashlib
import json
import os
import platform
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from slackdlm.atomic import put_on_disk
from slackdlm.errors import DataError

Status = Literal["ok", "failed"]
T = TypeVar("T")


class Entry(NamedTuple):
    """One item of a journal."""

    key: str
    """`item_key` of what decides the result."""
    status: Status
    """``failed`` items are tried again by the next run; ``ok`` items never change."""
    payload: dict[str, Any]
    """The result, or what went wrong."""


def content_hash(value: object) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys; DataError for NaN and what else is not JSON."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"journal: expected a JSON value, got {error}") from error
    return hashlib.sha256(text.encode()).hexdigest()


def item_key(identity: dict[str, Any], item: object) -> str:
    """Key of an item under all that it has in common with others; two identities never share a key."""
    return content_hash([identity, item])


def journal_of(output: Path) -> Path:
    """The folder that keeps what goes into an output, unless the user names another."""
    return output.with_name(output.name + ".journal")


class Journal:
    """An open journal; used from one thread.

    Args:
        folder: Made if it is not there. ``None``: nothing outlives this object.

    Raises:
        DataError: If the folder, or a file in it, is something else.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._file: Path | None = None
        self._ends: dict[Path, int] = {}
        self._entries: dict[str, tuple[tuple[bool, float], Entry]] = {}
        if folder is None:
            return
        file = folder if folder.is_file() else next(folder.glob("*.sqlite"), None)
        if file is not None:
            raise DataError(
                f"{file}: expected a folder of JSON lines, got a file, as journals of older versions were; "
                "delete it or give another journal"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: the journal cannot be opened ({error})") from error
        self._read()

    def get(self, key: str) -> Entry | None:
        """The item of that key; ``None`` if no process has recorded it yet."""
        if not self._is_known(key):
            self._read()
        return self._entries[key][1] if key in self._entries else None

    def is_done(self, key: str) -> bool:
        """Whether the item is recorded as ``ok``."""
        entry = self.get(key)
        return entry is not None and entry.status == "ok"

    def record(self, *entries: Entry) -> None:
        """Append items; on return they are on the disk. What is ``ok`` already stays as it is.

        Raises:
            DataError: If a payload is not JSON, and then nothing is written; if the folder cannot be written, and then
                what was recorded before stays.
        """
        self._read()
        new = [entry for entry in entries if not self._is_known(entry.key)]
        try:
            lines = [
                json.dumps(entry._asdict() | {"time": time.time()}, allow_nan=False) + "\n"
                for entry in new
            ]
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.folder}: expected a JSON payload, got {error}") from error
        if self.folder is not None and lines:
            self._append(self.folder, "".join(lines).encode())
        for line in lines:
            self._take(line)

    def complete(
        self,
        items: Mapping[str, T],
        work: Callable[[Sequence[T]], Sequence[dict[str, Any]]],
        *,
        batch_size: Callable[[T], int],
        on_done: Callable[[int], None],
    ) -> None:
        """Work out what no process has recorded yet, and record it batch by batch.

        Args:
            items: By key, in the order in which they are worked out.
            work: From a batch to its payloads; one with the key ``error`` is recorded as failed.
            batch_size: From an item to the size of the batch that it begins.
            on_done: Called with the number of items just finished, those of earlier runs first.
        """
        self._read()
        pending = [key for key in items if not self._is_known(key)]
        on_done(len(items) - len(pending))
        while pending:
            size = batch_size(items[pending[0]])
            keys, pending = pending[:size], pending[size:]
            self._read()  # another process may have been faster
            batch = [key for key in keys if not self._is_known(key)]
            payloads = work([items[key] for key in batch]) if batch else []
            self.record(
                *(
                    Entry(key, "failed" if "error" in payload else "ok", payload)
                    for key, payload in zip(batch, payloads, strict=True)
                )
            )
            on_done(len(keys))

    def _is_known(self, key: str) -> bool:
        """Whether it is done, without a look at what others have recorded since."""
        return key in self._entries and self._entries[key][1].status == "ok"

    def _append(self, folder: Path, content: bytes) -> None:
        name = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._file = self._file or folder / name
        try:
            with self._file.open("ab", buffering=0) as stream:
                while content:
                    content = content[stream.write(content) :]
                put_on_disk(stream.fileno())
        except OSError as error:
            # A line may have been begun, behind which nothing can be written: go on in a new file.
            self._file = None
            raise DataError(
                f"{folder}: the journal cannot be written ({error.strerror}); what was recorded before is kept, "
                "so run it again once there is room"
            ) from error

    def _read(self) -> None:
        """Take in what other processes have recorded since."""
        files = [] if self.folder is None else sorted(self.folder.glob("*.jsonl"))
        try:
            for file in files:
                end = self._ends.get(file, 0)
                if file != self._file and file.stat().st_size > end:
                    self._ends[file] = self._read_lines(file, end)
        except OSError as error:
            raise DataError(f"{self.folder}: the journal cannot be read ({error})") from error

    def _read_lines(self, file: Path, start: int) -> int:
        """Take in the lines of a file from there on; where the last whole line ends."""
        with file.open("rb") as stream:
            stream.seek(start)
            for line in stream:
                if not line.endswith(b"\n"):
                    break  # It is being written, or was torn by a kill: then the item is done again.
                try:
                    self._take(line)
                except (ValueError, TypeError, KeyError) as error:
                    number = 1 + file.read_bytes()[:start].count(b"\n")
                    raise DataError(
                        f"{file}:{number}: expected an item of a journal, got {line[:60]!r}; give another journal, or "
                        "delete the line if the file was damaged: this one item is then done again"
                    ) from error
                start += len(line)
        return start

    def _take(self, line: str | bytes) -> None:
        """Keep an item, unless another of its key stands: the first that is ``ok``, else the last failure."""
        row = json.loads(line)
        is_ok = row["status"] == "ok"
        entry = Entry(row["key"], "ok" if is_ok else "failed", dict(row["payload"]))
        rank = (is_ok, -float(row["time"]) if is_ok else float(row["time"]))
        if entry.key not in self._entries or rank > self._entries[entry.key][0]:
            self._entries[entry.key] = (rank, entry)
