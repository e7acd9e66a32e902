"""A journal keeps what was recorded: through kills, beside other processes, apart by identity."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackdlm.errors import DataError
from slackdlm.journal import Entry, Journal, content_hash, item_key

JUDGE = {"judge": "a", "temperature": 0.0}
OTHER = {"judge": "b", "temperature": 0.0}

# Prints an item's number only when it is recorded.
WRITER = """
import sys
from pathlib import Path
from slackdlm.journal import Journal, item_key
first, last = int(sys.argv[2]), int(sys.argv[3])
with Journal(Path(sys.argv[1])) as journal:
    for number in range(first, last):
        key = item_key({"judge": "a"}, number)
        if not journal.is_done(key):
            journal.record(key, {"number": number}, identity={"judge": "a"})
        print(number, flush=True)
"""


def start_writer(path: Path, first: int, last: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first), str(last)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def numbers(path: Path) -> list[int]:
    with Journal(path) as journal:
        return sorted(entry.payload["number"] for entry in journal.entries({"judge": "a"}))


def test_what_is_recorded_is_read_back_by_the_next_process(tmp_path: Path) -> None:
    path, key = tmp_path / "deep" / "j.sqlite", item_key(JUDGE, [1, "é\ud800"])
    with Journal(path) as journal:
        journal.record(key, {"text": "é\u2028\x00\ud800"}, identity=JUDGE)
    with Journal(path) as journal:
        assert journal.get(key) == Entry(key, "ok", {"text": "é\u2028\x00\ud800"})
        assert journal.is_done(key)
        assert journal.identities() == [JUDGE]


def test_a_failed_item_is_replaced_and_an_ok_one_never(tmp_path: Path) -> None:
    key = item_key(JUDGE, 1)
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.record(key, {"error": "timeout"}, identity=JUDGE, status="failed")
        assert not journal.is_done(key)
        journal.record(key, {"score": 1}, identity=JUDGE)
        journal.record(key, {"score": 0}, identity=JUDGE)
        journal.record(key, {"error": "late"}, identity=JUDGE, status="failed")
        assert journal.get(key) == Entry(key, "ok", {"score": 1})


def test_a_batch_is_recorded_whole_or_not_at_all(tmp_path: Path) -> None:
    entries = [Entry(item_key(JUDGE, n), "ok", {"number": n}) for n in range(3)]
    unwritable = Entry("x", "ok", {"number": float("nan")})
    with Journal(tmp_path / "j.sqlite") as journal:
        with pytest.raises(DataError, match="expected a JSON payload"):
            journal.record_all([*entries, unwritable], identity=JUDGE)
        assert not list(journal.entries(JUDGE))
        journal.record_all(entries, identity=JUDGE)
        assert {entry.payload["number"] for entry in journal.entries(JUDGE)} == {0, 1, 2}


def test_items_of_two_identities_never_merge(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        for score, identity in enumerate((JUDGE, OTHER)):
            journal.record(item_key(identity, "q1"), {"score": score}, identity=identity)
        assert [entry.payload["score"] for entry in journal.entries(JUDGE)] == [0]
        assert [entry.payload["score"] for entry in journal.entries(OTHER)] == [1]


def test_killed_writers_lose_nothing_they_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    acknowledged: set[int] = set()
    for kill_at in (5, 11):
        with start_writer(path, 0, 10_000) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                acknowledged.add(int(line))
                if int(line) == kill_at:
                    os.kill(writer.pid, signal.SIGKILL)
        assert writer.returncode == -signal.SIGKILL
        assert acknowledged <= set(numbers(path))
    last = max(acknowledged) + 5
    with start_writer(path, 0, last) as writer:
        writer.communicate()
    assert set(numbers(path)) >= set(range(last))
    assert len(numbers(path)) == len(set(numbers(path)))


FILE_SYSTEMS = {
    # exFAT, Google Drive
    "without hard links": "int link(const char *a, const char *b) { errno = EOPNOTSUPP; return -1; }",
    # Network drives
    "without shared memory": """
        void *mmap(void *a, size_t n, int p, int f, int d, off_t o) {
            if ((f & MAP_SHARED) && d >= 0) { errno = ENODEV; return MAP_FAILED; }
            return (void *)syscall(SYS_mmap, a, n, p, f, d, o);
        }
        void *mmap64(void *a, size_t n, int p, int f, int d, off_t o) { return mmap(a, n, p, f, d, o); }""",
    # Clusters
    "without locks": """
        int fcntl(int d, int c, ...) {
            va_list v; va_start(v, c); long a = va_arg(v, long); va_end(v);
            if (c == F_SETLK || c == F_SETLKW) { errno = ENOSYS; return -1; }
            return syscall(SYS_fcntl, d, c, a);
        }
        int fcntl64(int d, int c, ...) {
            va_list v; va_start(v, c); long a = va_arg(v, long); va_end(v);
            return fcntl(d, c, a);
        }""",
}
"""What some file systems lack -> C that lets a process meet one."""
HEADERS = ("errno", "fcntl", "stdarg", "sys/mman", "sys/syscall", "unistd")


@pytest.mark.parametrize("kind", ["whole", *FILE_SYSTEMS])
def test_processes_share_a_journal_from_its_first_moment(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind != "whole":
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None or not sys.platform.startswith("linux"):
            pytest.skip("no C compiler for Linux to emulate such a file system")
        includes = "".join(f"#include <{name}.h>\n" for name in HEADERS)
        source, library = tmp_path / "lacks.c", tmp_path / "lacks.so"
        source.write_text(f"#define _GNU_SOURCE\n{includes}{FILE_SYSTEMS[kind]}")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
        monkeypatch.setenv("LD_PRELOAD", str(library))
    path = tmp_path / "j.sqlite"
    writers = [start_writer(path, first, first + 40) for first in (0, 20, 40, 0)]
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0] * 4
    assert numbers(path) == list(range(80))
    assert not list(tmp_path.glob(".*draft*"))


def test_a_lock_that_a_killed_process_left_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorname = "SQLITE_BUSY"
        raise error

    (tmp_path / "j.sqlite.lock").mkdir()
    monkeypatch.setattr(sqlite3, "connect", refuse)
    with pytest.raises(DataError, match=r"or one that was killed left .*j\.sqlite\.lock behind"):
        Journal(tmp_path / "j.sqlite")


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=4))
def test_a_hash_does_not_know_the_order_of_keys(value: dict[str, object]) -> None:
    assert content_hash(value) == content_hash(dict(reversed(value.items())))
    assert content_hash(value) != content_hash([value])


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"x"])
def test_what_is_not_json_has_no_hash(value: object) -> None:
    with pytest.raises(DataError, match="expected a JSON value"):
        content_hash(value)


def test_a_payload_that_is_not_json_is_refused_and_the_journal_goes_on(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        with pytest.raises(DataError, match="expected a JSON payload"):
            journal.record(item_key(JUDGE, 1), {"score": float("nan")}, identity=JUDGE)
        journal.record(item_key(JUDGE, 1), {"score": None}, identity=JUDGE)
        assert journal.is_done(item_key(JUDGE, 1))


def test_other_files_are_refused_and_left_as_they_were(tmp_path: Path) -> None:
    text = tmp_path / "answers.jsonl"
    text.write_text("{}\n" * 40)
    with pytest.raises(
        DataError, match=r"answers\.jsonl: not a readable and writable journal.*keep it"
    ):
        Journal(text)
    assert text.read_text() == "{}\n" * 40
    foreign = tmp_path / "foreign.sqlite"
    database = sqlite3.connect(foreign)
    database.execute("CREATE TABLE items (x)")
    database.close()
    with pytest.raises(DataError, match="no journal of this package"):
        Journal(foreign)


def test_a_folder_that_cannot_hold_a_journal_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="the journal cannot be opened"):
        Journal(tmp_path / "file" / "j.sqlite")
