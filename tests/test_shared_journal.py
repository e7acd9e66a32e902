"""A journal keeps what was recorded: through kills, beside other processes, on any file system."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackdlm.errors import DataError
from slackdlm.journal import Entry, Journal, content_hash, item_key

# Prints an item's number only when it is recorded.
WRITER = """
import sys
from pathlib import Path
from slackdlm.journal import Entry, Journal, item_key
journal = Journal(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    key = item_key({}, number)
    if not journal.is_done(key):
        journal.record(Entry(key, "ok", {"number": number}))
    print(number, flush=True)
"""


def start_writer(folder: Path, first: int, last: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(first), str(last)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def recorded(folder: Path, *, last: int) -> list[int]:
    journal = Journal(folder)
    return [number for number in range(last) if journal.is_done(item_key({}, number))]


def test_what_is_recorded_is_read_back_by_the_next_process(tmp_path: Path) -> None:
    folder, text = tmp_path / "deep" / "j", "é\u2028\r\n\x00\ud800"
    entry = Entry(item_key({"judge": text}, [1, text]), "ok", {"text": text})
    Journal(folder).record(entry)
    assert Journal(folder).get(entry.key) == entry
    assert Journal(folder).is_done(entry.key)
    assert Journal(folder).get("another") is None


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_failed_item_is_replaced_and_an_ok_one_never(tmp_path: Path, in_memory: bool) -> None:
    journal = Journal(None if in_memory else tmp_path)
    for status, payload in (("failed", {"n": 1}), ("failed", {"n": 2})):
        journal.record(Entry("k", status, payload))
        assert journal.get("k") == Entry("k", "failed", payload)
    for status, payload in (("ok", {"n": 3}), ("ok", {"n": 4}), ("failed", {"n": 5})):
        journal.record(Entry("k", status, payload))
        assert journal.get("k") == Entry("k", "ok", {"n": 3})
    assert in_memory or Journal(tmp_path).get("k") == journal.get("k")


def test_processes_at_once_see_what_the_others_record_and_agree(tmp_path: Path) -> None:
    one, other = Journal(tmp_path), Journal(tmp_path)
    one.record(Entry("a", "failed", {"by": 1}))
    assert other.get("a") == Entry("a", "failed", {"by": 1})
    other.record(Entry("a", "ok", {"by": 2}))
    one.record(Entry("a", "ok", {"by": 1}))
    assert one.get("a") == other.get("a") == Journal(tmp_path).get("a")
    assert one.get("a") == Entry("a", "ok", {"by": 2})
    # Both at the same moment: the first stands, whichever file is read first.
    lines = [{"key": "b", "status": "ok", "payload": {"by": n}, "time": 9.0 - n} for n in (1, 2, 3)]
    for name, line in zip("xzy", lines, strict=True):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert {str(journal.get("b")) for journal in (one, other, Journal(tmp_path))} == {
        str(Entry("b", "ok", {"by": 3}))
    }


def test_only_what_is_missing_is_worked_out_batch_by_batch(tmp_path: Path) -> None:
    journal, batches, counts = Journal(tmp_path), list[list[int]](), list[int]()
    journal.record(Entry("0", "ok", {}), Entry("1", "failed", {}))

    def work(batch: list[int]) -> list[dict[str, object]]:
        batches.append(batch)
        Journal(tmp_path).record(Entry("4", "ok", {"by": "another process"}))
        return [{"error": "odd"} if number == 3 else {"number": number} for number in batch]

    items = {str(number): number for number in range(6)}
    journal.complete(items, work, batch_size=lambda first: 2, on_done=counts.append)
    assert batches == [[1, 2], [3], [5]]
    assert counts == [1, 2, 2, 1]
    assert [key for key in items if not journal.is_done(key)] == ["3"]


def test_ten_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged: set[int] = set()
    for kill_at in range(3, 33, 3):
        with start_writer(tmp_path / "j", 0, 10_000) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                acknowledged.add(int(line))
                if int(line) == kill_at:
                    os.kill(writer.pid, signal.SIGKILL)
        assert writer.returncode == -signal.SIGKILL
        assert acknowledged <= set(recorded(tmp_path / "j", last=1000))
    last = max(acknowledged) + 5
    with start_writer(tmp_path / "j", 0, last) as writer:
        writer.communicate()
    assert recorded(tmp_path / "j", last=last) == list(range(last))


BARE_FILE_SYSTEM = """
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
int link(const char *a, const char *b) { errno = EOPNOTSUPP; return -1; }
int flock(int d, int c) { errno = ENOSYS; return -1; }
void *mmap(void *a, size_t n, int p, int f, int d, off_t o) {
    if ((f & MAP_SHARED) && d >= 0) { errno = ENODEV; return MAP_FAILED; }
    return (void *)syscall(SYS_mmap, a, n, p, f, d, o);
}
int fcntl(int d, int c, ...) {
    va_list v; va_start(v, c); long a = va_arg(v, long); va_end(v);
    if (c == F_SETLK || c == F_SETLKW) { errno = ENOSYS; return -1; }
    return syscall(SYS_fcntl, d, c, a);
}
"""
"""No hard links, no locks, no shared memory: exFAT, Google Drive, network drives."""


@pytest.mark.parametrize("kind", ["whole", "bare"])
def test_processes_share_a_journal_from_its_first_moment(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "bare":
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None or not sys.platform.startswith("linux"):
            pytest.skip("no C compiler for Linux to emulate such a file system")
        source, library = tmp_path / "lacks.c", tmp_path / "lacks.so"
        source.write_text(BARE_FILE_SYSTEM)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
        monkeypatch.setenv("LD_PRELOAD", str(library))
    writers = [start_writer(tmp_path / "j", first, first + 40) for first in (0, 20, 40, 0)]
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0] * 4
    assert recorded(tmp_path / "j", last=100) == list(range(80))
    assert len(list((tmp_path / "j").iterdir())) <= 4, "one file a process"


def test_a_full_disk_is_one_error_and_what_was_recorded_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    count = 0
    try:
        while sum(file.stat().st_size for file in tmp_path.iterdir()) < 850:
            journal.record(Entry(str(count), "ok", {"text": "x" * 50}))
            count += 1
        with pytest.raises(DataError, match=r"cannot be written \(File too large\); what was"):
            journal.record(Entry(str(count), "ok", {"text": "x" * 150}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == 1000, "a line was begun"
    for opened in (journal, Journal(tmp_path)):
        assert all(opened.is_done(str(number)) for number in range(count))
        assert not opened.is_done(str(count))
    # Once there is room it goes on, and not behind the line that was begun.
    journal.record(Entry(str(count), "ok", {}))
    assert Journal(tmp_path).is_done(str(count))


def test_a_line_that_a_kill_tore_is_left_alone(tmp_path: Path) -> None:
    Journal(tmp_path).record(Entry("a", "ok", {}), Entry("b", "ok", {"text": "x"}))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    journal = Journal(tmp_path)
    assert (journal.is_done("a"), journal.is_done("b")) == (True, False)
    torn = file.read_bytes()
    journal.record(Entry("b", "ok", {}))
    assert Journal(tmp_path).is_done("b")
    assert file.read_bytes() == torn


@pytest.mark.parametrize("line", ["{", "[]", "7", "{}", '{"key": "a", "status": "ok"}', "\0\0", ""])
def test_a_line_of_something_else_is_named(tmp_path: Path, line: str) -> None:
    Journal(tmp_path).record(Entry("a", "ok", {}))
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(DataError, match=rf"{file.name}:2: expected an item of a journal.*delete"):
        Journal(tmp_path)


@pytest.mark.parametrize("name", ["j.sqlite", "j/0-of-1.sqlite"])
def test_a_journal_of_an_older_version_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "j").mkdir()
    (tmp_path / name).write_bytes(b"SQLite format 3\0")
    with pytest.raises(DataError, match=rf"{name}: expected a folder.*of older versions"):
        Journal(tmp_path / Path(name).parts[0])


def test_a_folder_that_cannot_hold_a_journal_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="the journal cannot be opened"):
        Journal(tmp_path / "file" / "j")


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=4))
def test_a_hash_does_not_know_the_order_of_keys(value: dict[str, object]) -> None:
    assert content_hash(value) == content_hash(dict(reversed(value.items())))
    assert content_hash(value) != content_hash([value])
    assert item_key(value, 1) != item_key({**value, "more": 1}, 1)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"x"])
def test_what_is_not_json_is_refused_and_nothing_written(tmp_path: Path, value: object) -> None:
    with pytest.raises(DataError, match="expected a JSON value"):
        content_hash(value)
    journal = Journal(tmp_path)
    with pytest.raises(DataError, match="expected a JSON payload"):
        journal.record(Entry("a", "ok", {}), Entry("b", "ok", {"score": value}))
    assert list(tmp_path.iterdir()) == []
    assert not journal.is_done("a")
