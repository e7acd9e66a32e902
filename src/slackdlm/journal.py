"""What is already paid for? One SQLite row per finished item, keyed by the content that decided it.

Answers and judgments are journalled by the same few functions. The database is the only lock: processes on one machine
may share a journal, and ``kill -9`` at any time loses nothing that was recorded.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, cast

from slackdlm.errors import DataError

Status = Literal["ok", "failed"]
_APPLICATION_ID = 0x51ACD1
_SCHEMA = (
    "CREATE TABLE identities (hash TEXT PRIMARY KEY, identity TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE items (
    key TEXT PRIMARY KEY,
    identity TEXT NOT NULL REFERENCES identities (hash),
    status TEXT NOT NULL CHECK (status IN ('ok', 'failed')),
    payload TEXT NOT NULL
) WITHOUT ROWID""",
    "CREATE INDEX items_by_identity ON items (identity)",
)
_BUSY_SECONDS = 60.0


class Entry(NamedTuple):
    """One item of a journal."""

    key: str
    """:func:`item_key` of the identity and the item."""
    status: Status
    """``failed`` items are tried again by the next run; ``ok`` items never change."""
    payload: dict[str, Any]
    """The result, or what went wrong."""


def content_hash(value: object) -> str:
    """SHA-256 of a JSON value: the same for equal content, whatever the order of its keys.

    Raises:
        DataError: If the value is not JSON; NaN and infinities are not.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"journal: expected a JSON value, got {error}") from error
    return hashlib.sha256(text.encode()).hexdigest()


def item_key(identity: dict[str, Any], item: object) -> str:
    """Key of an item under an identity; two identities never share a key."""
    return content_hash([identity, item])


class Journal:
    """An open journal file; used from the thread that opened it.

    Args:
        path: The SQLite file, made if it is not there, with its folder.

    Raises:
        DataError: If the file is something else, or cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _connect(path)
            try:
                self._check()
            except BaseException:
                self._database.close()
                raise

    def _check(self) -> None:
        if self._application() == 0:
            _create(self.path, self._database)
        if self._application() != _APPLICATION_ID:
            raise DataError(f"{self.path}: no journal of this package; choose another file")

    def _application(self) -> int:
        return self._database.execute("PRAGMA application_id").fetchone()[0]

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was recorded is already safe."""
        self._database.close()

    def get(self, key: str) -> Entry | None:
        """The item of that key; ``None`` if it was never recorded."""
        with _explained(self.path):
            row = self._database.execute(
                "SELECT key, status, payload FROM items WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else _entry(self.path, row)

    def is_done(self, key: str) -> bool:
        """Whether the item is recorded as ``ok``."""
        with _explained(self.path):
            row = self._database.execute(
                "SELECT 1 FROM items WHERE key = ? AND status = 'ok'", (key,)
            ).fetchone()
        return row is not None

    def record(
        self, key: str, payload: dict[str, Any], *, identity: dict[str, Any], status: Status = "ok"
    ) -> None:
        """Write one item; as :meth:`record_all`."""
        self.record_all([Entry(key, status, payload)], identity=identity)

    def record_all(self, entries: Sequence[Entry], *, identity: dict[str, Any]) -> None:
        """Write items in one transaction; on return they are on the disk, all of them or none.

        An ``ok`` item stays as it was first recorded, a ``failed`` one is replaced.

        Args:
            entries: Their keys are :func:`item_key` of ``identity`` and the item.
            identity: Everything that all items of this kind have in common; kept beside them.

        Raises:
            DataError: If a payload is not JSON or the file cannot be written.
        """
        mark = content_hash(identity)
        try:
            rows = [
                (entry.key, mark, entry.status, json.dumps(entry.payload, allow_nan=False))
                for entry in entries
            ]
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.path}: expected a JSON payload, got {error}") from error
        with _explained(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._database.execute(
                    "INSERT INTO identities VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (mark, json.dumps(identity, sort_keys=True)),
                )
                self._database.executemany(
                    "INSERT INTO items VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                    "status = excluded.status, payload = excluded.payload WHERE status = 'failed'",
                    rows,
                )
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def entries(self, identity: dict[str, Any]) -> Iterator[Entry]:
        """All items of one identity, in the order of their keys."""
        with _explained(self.path):
            rows = self._database.execute(
                "SELECT key, status, payload FROM items WHERE identity = ? ORDER BY key",
                (content_hash(identity),),
            ).fetchall()
        return (_entry(self.path, row) for row in rows)

    def identities(self) -> list[dict[str, Any]]:
        """Every identity the journal holds items of."""
        with _explained(self.path):
            rows = self._database.execute(
                "SELECT identity FROM identities ORDER BY identity"
            ).fetchall()
        return [json.loads(row[0]) for row in rows]


def _connect(path: Path) -> sqlite3.Connection:
    try:
        return _open(str(path))
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname not in ("SQLITE_IOERR_RDLOCK", "SQLITE_IOERR_LOCK"):
            raise
        # No locks on this file system, as on some of clusters: a folder JOURNAL.lock is one.
        return _open(f"{path.absolute().as_uri()}?vfs=unix-dotfile", uri=True)


def _open(address: str, *, uri: bool = False) -> sqlite3.Connection:
    """An open database that can be read, by its path or address."""
    # Autocommit: every statement is a transaction of its own. FULL: a commit survives a power cut too.
    database = sqlite3.connect(address, timeout=_BUSY_SECONDS, isolation_level=None, uri=uri)
    try:
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA application_id").fetchone()
    except BaseException:
        database.close()
        raise
    return database


def _create(path: Path, database: sqlite3.Connection) -> None:
    """Make a journal of an empty database, whole or not at all, unless another process has just done it."""
    database.execute("BEGIN EXCLUSIVE")
    try:
        if not database.execute("SELECT 1 FROM sqlite_schema").fetchone():
            database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            for statement in _SCHEMA:
                database.execute(statement)
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
    # Write-ahead logging: readers never wait, and a commit is one append. The file stays in this mode; it goes without
    # where another process is at it.
    if _can_log_ahead(path):
        with suppress(sqlite3.OperationalError):
            database.execute("PRAGMA journal_mode = WAL")


def _can_log_ahead(path: Path) -> bool:
    """Whether processes can share memory there, tried on a file beside it: network drives have none."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with closing(sqlite3.connect(draft)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        return False
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{draft}{suffix}").unlink(missing_ok=True)
    return True


def _entry(path: Path, row: tuple[str, str, str]) -> Entry:
    try:
        return Entry(row[0], cast("Status", row[1]), json.loads(row[2]))
    except ValueError as error:
        raise DataError(f"{path}: the payload of item {row[0]} is not JSON ({error})") from error


@contextmanager
def _explained(path: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        lock = path.with_name(f"{path.name}.lock")
        if lock.exists():
            raise DataError(
                f"{path}: another process has it, or one that was killed left {lock} behind; wait, or delete it"
            ) from error
        raise DataError(
            f"{path}: not a readable and writable journal ({error}); choose another file. If this one held paid "
            f"replies keep it: 'sqlite3 {path} .recover' shows what can still be read"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: the journal cannot be opened ({error})") from error
