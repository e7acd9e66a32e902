"""A user's file is whole whenever the process dies, whoever writes it."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slackdlm.atomic import check_writable, write_bytes, write_json, write_text

SOURCE = Path(__file__).parents[1] / "src" / "slackdlm"
WRITES = re.compile(
    r'\.write_(?:text|bytes)\(|\bopen\([^)]*"[rbt]*[wax+][wax+rbt]*"|json\.dump\(|csv\.\w+\(open'
)
ELSEWHERE = {
    # They grow line by line over a run; what reads them drops an unfinished last line.
    ("training/journal.py", 'open("a"'),
    ("journal.py", 'open("ab"'),
}


def written(file: Path) -> set[tuple[str, str]]:
    """Every place in a source file that opens a file for writing."""
    text = file.read_text(encoding="utf-8")
    return {(str(file.relative_to(SOURCE)), found) for found in WRITES.findall(text)}


def test_all_files_are_written_in_one_place() -> None:
    found = {one for file in SOURCE.rglob("*.py") for one in written(file)}
    assert found - {("atomic.py", 'open("wb"')} == ELSEWHERE


@pytest.mark.parametrize(
    "line", ['path.write_text("x")', 'open("f", "w")', 'path.open(mode="wb")', "json.dump(x, stream)"]
)  # fmt: skip
def test_another_place_would_be_seen(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # fmt: skip
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    (tmp_path / "m.py").write_text(line)
    assert len(written(tmp_path / "m.py")) == 1


def test_texts_bytes_and_json_are_written_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "file"
    write_bytes(file, b"\x00\r\n")
    assert file.read_bytes() == b"\x00\r\n"
    write_text(file, "é\n")
    assert file.read_bytes() == "é\n".encode()
    write_json(file, {"b": 1, "a": "é"}, sort_keys=True)
    assert list(json.loads(file.read_text()).items()) == [("a", "é"), ("b", 1)]
    write_json(file, {"b": [1], "a": 2})
    assert file.read_text() == '{\n  "b": [\n    1\n  ],\n  "a": 2\n}\n'
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("folder", "it is a folder"),
        ("pipe", "it is a device or a pipe"),
        ("file/out", "file is no folder"),
        ("file/deep/out", "file is no folder"),
        ("nowhere/out", "nowhere is no folder"),
        ("locked/deep/out", "no permission to write in .*locked"),
        ("n" * 300, "too long"),
    ],
)
def test_what_could_not_be_written_is_told_before_and_left_alone(
    place: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("folder", "locked"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    rights = os.W_OK | os.X_OK  # root may write anywhere, so the system is not asked
    monkeypatch.setattr(os, "access", lambda path, mode: mode != rights or path.name != "locked")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match=reason) as caught:
        check_writable(tmp_path / place)
    assert caught.value.filename == str(tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", ["file", "new", "deep/deeper/new", "link"])
def test_what_can_be_written_passes_and_is_not_made(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    before = sorted(tmp_path.rglob("*"))
    check_writable(tmp_path / place)
    monkeypatch.chdir(tmp_path)
    check_writable(Path(place))
    assert sorted(tmp_path.rglob("*")) == before
    write_text(tmp_path / place, "new")
    assert (tmp_path / place).read_text() == "new"


@pytest.mark.parametrize("fault", ["fsync", "replace", "interrupt", "json"])
def test_whatever_fails_the_old_file_stays_and_no_draft(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt if fault == "interrupt" else OSError(28, "No space left on device")

    if fault == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    elif fault != "json":
        monkeypatch.setattr(os, "fsync", fail)
    errors = {"interrupt": KeyboardInterrupt, "json": ValueError}
    with pytest.raises(errors.get(fault, OSError)) as caught:
        write_json(file, float("nan") if fault == "json" else 1)
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("place", ["file/out", "n" * 300])
def test_a_place_for_no_file_is_named_and_not_the_draft(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match=r"file/out|n{300}") as caught:
        write_text(tmp_path / place, "new")
    assert caught.value.filename == str(tmp_path / place)


def test_the_whole_draft_is_on_the_disk_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: sizes.append(os.fstat(handle).st_size))
    write_bytes(tmp_path / "file", b"new")
    assert sizes == [3]


def test_a_mount_that_cannot_sync_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(number: int) -> Callable[[int], None]:
        def sync(handle: int) -> None:
            raise OSError(number, os.strerror(number))

        return sync

    monkeypatch.setattr(os, "fsync", fails(errno.EINVAL))
    write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    monkeypatch.setattr(os, "fsync", fails(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        write_bytes(tmp_path / "file", b"newer")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    code = (
        "import os, pathlib, signal, sys; from slackdlm import atomic\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "atomic.write_text(pathlib.Path(sys.argv[1]), 'new' * 10_000)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file")],
        env=os.environ | {"PYTHONPATH": str(SOURCE.parent)},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_text() == "old"
