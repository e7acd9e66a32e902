"""Questions by path, by hub address and by name, from a hub on loopback."""

import hashlib
import threading
from collections.abc import Generator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError

from slackdlm import records as items
from slackdlm.benchmarks import question_source
from slackdlm.benchmarks.question_source import question_file
from slackdlm.errors import DataError

QUESTION = b'{"prompt": "What?"}\n'
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    """Serves each path of ``files``; 404 with the hub's own error codes for the rest."""

    files: dict[str, bytes]
    asked: list[str]

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        self.asked.append(self.path)
        body = self.files.get(self.path)
        self.send_response(404 if body is None else 200)
        if body is None:
            known = self.path.startswith("/datasets/own/data/")
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        else:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if with_body and body is not None:
            self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[type[_Hub]]:
    class Handler(_Hub):
        files: dict[str, bytes] = {}  # noqa: RUF012
        asked: list[str] = []  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    download = partial(hf_hub_download, endpoint=url, cache_dir=tmp_path / "cache", token=False)
    monkeypatch.setattr(question_source, "hf_hub_download", download)
    yield Handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_is_downloaded_once_its_revision_is_asked_for(hub: type[_Hub]) -> None:
    hub.files["/datasets/own/data/resolve/v1/sub/q.jsonl"] = QUESTION
    found = question_file("hf://datasets/own/data@v1/sub/q.jsonl")
    assert found.read_bytes() == QUESTION
    assert all("/resolve/v1/" in path for path in hub.asked)
    hub.files["/spaces/own/app/resolve/main/q.jsonl"] = b"other"
    assert question_file("hf://spaces/own/app/q.jsonl").read_bytes() == b"other"


def test_a_known_name_is_the_published_file_or_an_error(
    hub: type[_Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = (
        "/datasets/lmarena-ai/arena-hard-auto/resolve/main/data/arena-hard-v2.0/question.jsonl"
    )
    hub.files[address] = QUESTION
    with pytest.raises(DataError, match=r"expected the published file of arena-hard-v2\.0"):
        question_file("arena-hard-v2.0")
    known = {hashlib.sha256(QUESTION).hexdigest(): "arena-hard-v2.0"}
    monkeypatch.setattr(items, "KNOWN_VERSIONS", known)
    assert question_file("arena-hard-v2.0").read_bytes() == QUESTION


def test_a_path_is_a_path_even_if_it_is_called_like_a_benchmark(
    hub: type[_Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert question_file("missing.jsonl") == Path("missing.jsonl")
    Path("mt-bench").write_text("here")
    assert question_file("mt-bench") == Path("mt-bench")
    assert hub.asked == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf://datasets/own/data/none.jsonl", "none.jsonl of own/data cannot .* no such file"),
        ("hf://datasets/no/body/q.jsonl", "none of that name, or it is private"),
        ("hf://datasets/own/q.jsonl", "expected hf://datasets/OWNER/NAME/FILE"),
        ("hf:/datasets/own/data/q.jsonl", "expected hf://datasets/OWNER/NAME/FILE"),
    ],
)
def test_what_the_hub_does_not_have_is_one_short_error(
    hub: type[_Hub], source: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        question_file(source)
    assert len(str(caught.value)) < 260


def test_without_a_network_the_way_on_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from slackdlm.cli import main

    def nowhere(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("An error happened while trying to locate the file. " * 20)

    monkeypatch.setattr(question_source, "hf_hub_download", nowhere)
    asked = "hf://datasets/own/data/q.jsonl"
    commands = (
        ["answer", "own/m", "--questions", asked, "--output", "a.jsonl", "--canvas-length", "8"],
        ["generate", "own/m", "--input", asked, "--canvas-length", "8"],
        ["judge", "--benchmark", "pairs", "--questions", asked, "--answers", "a.jsonl", "--output", "j.jsonl",
         "--judge", "toy"],
        ["probe", "--arm", "a=own/m", "--questions", asked, "--output", str(tmp_path / "p"), "--canvas-length", "8",
         "--judge", "toy"],
    )  # fmt: skip
    for command in commands:
        assert main(command) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert error.startswith("error: hf://datasets/own/data/q.jsonl: q.jsonl of own/data cannot")
        assert "the hub cannot be reached and it is not in the local cache" in error
        assert error.endswith("download it by hand and give its path")
