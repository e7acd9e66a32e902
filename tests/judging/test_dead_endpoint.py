"""A judge that nobody answers for is said at once; a server that goes away on the way is waited for."""

import json
import socket
import threading
import time
from pathlib import Path

import pytest
from judge_server import JudgeServer, serving
from test_judging import KEY, endpoint, run

from slackdlm.errors import ConfigError
from slackdlm.judging.endpoint import EndpointConfig, EndpointJudge


@pytest.fixture
def dead_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def judge_at(url: str) -> EndpointJudge:
    return EndpointJudge(EndpointConfig(model="m", base_url=url, key_variable="K"), {"K": KEY})


@pytest.mark.parametrize("host", ["dead port", "no such host"])
def test_it_is_one_error_within_seconds(host: str, dead_url: str, tmp_path: Path) -> None:
    url = dead_url if host == "dead port" else "http://judge.invalid:8000/v1"
    judge, started = judge_at(url), time.monotonic()
    with pytest.raises(ConfigError, match=f"nothing answers at {url} .*start the server") as caught:
        run(judge, tmp_path / "j.journal")
    assert time.monotonic() - started < 10
    assert KEY not in str(caught.value)
    with pytest.raises(ConfigError, match="nothing answers"):
        run(judge, tmp_path / "k.journal")
    judge.close()


def test_the_command_says_it_once(
    dead_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from slackdlm.cli import main

    (tmp_path / "q.jsonl").write_text(json.dumps({"prompt": "What ?"}))
    for name in ("a", "b"):
        row = {"id": "0", "turn": 1, "system": name, "text": name, "prompt": None}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    flags = ["judge", "--benchmark", "pairs", "--judge", "openai", "--judge-model", "m"]
    for flag, name in (("questions", "q"), ("answers", "a"), ("baseline", "b"), ("output", "out")):
        flags += [f"--{flag}", str(tmp_path / f"{name}.jsonl")]
    assert main([*flags, "--base-url", dead_url]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert error.count(dead_url.rsplit("/", 1)[0]) == 1
    assert "nothing answers" in error
    assert not (tmp_path / "out.jsonl").exists()


def test_what_is_judged_already_needs_no_server(tmp_path: Path) -> None:
    with serving() as server:
        judged = run(endpoint(server), tmp_path / "j.journal")
        again = endpoint(server)
    assert run(again, tmp_path / "j.journal").judgments == judged.judgments


def test_a_server_that_was_there_is_tried_again(tmp_path: Path) -> None:
    """It goes away behind the first reply and comes back, under the same address, before the retries end."""
    with serving() as server:
        expected = run(endpoint(server), tmp_path / "whole.journal").judgments
    with serving() as server:
        judge = endpoint(server, concurrency=1)
        port = server.server_address[1]
        gone, back = threading.Event(), list[JudgeServer]()

        def on_judged(count: int, usd: float | None) -> None:
            if not gone.is_set():
                gone.set()
                server.shutdown()
                server.server_close()
                judge.close()  # a connection kept alive would outlive its server
                judge._client = endpoint(server)._client
                threading.Timer(0.7, come_back).start()

        def come_back() -> None:
            revived = JudgeServer([], port=port)
            back.append(revived)
            threading.Thread(target=revived.serve_forever, kwargs={"poll_interval": 0.01}).start()

        try:
            judged = run(judge, tmp_path / "j.journal", on_judged=on_judged)
        finally:
            judge.close()
            for revived in back:
                revived.shutdown()
                revived.server_close()
    assert gone.is_set()
    assert judged.judgments == expected
    assert len(server.requests) + len(back[0].requests) == 6
