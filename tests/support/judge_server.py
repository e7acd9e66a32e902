"""A judge behind a real HTTP server on loopback, with every fault a server can have."""

import hashlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[Sequence[dict[str, str]]], str | dict[str, Any]]
"""Messages -> the text, or the fields of the choice."""
FAULTS = (
    "429",
    "500",
    "408",
    "hang",
    "close",
    "cut",
    "malformed",
    "not_json",
    "no_choices",
    "wrong_shape",
    "unparsable",
    "empty",
)
"""``cut``: the connection ends inside the body; ``hang``: no answer within the client's timeout."""

VERDICTS = ("A>>B", "A>B", "A=B", "B>A", "B>>A")


def verdict_for(messages: Sequence[dict[str, str]]) -> str:
    """What this judge thinks: always the same of the same words."""
    digest = hashlib.sha256(json.dumps(list(messages)).encode()).digest()
    return VERDICTS[digest[0] % len(VERDICTS)]


def _verdict(messages: Sequence[dict[str, str]]) -> str:
    return f"A longer explanation. My verdict: [[{verdict_for(messages)}]]"


class JudgeServer(ThreadingHTTPServer):
    """Each prompt first meets the faults of its turn, then a reply; ``requests`` holds all that came."""

    daemon_threads = True

    def __init__(
        self,
        faults: Sequence[str],
        *,
        forever: bool = False,
        retry_after: str = "0.05",
        reply: Reply | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.reply = reply or _verdict
        self.faults = list(faults)
        self.forever = forever
        self.retry_after = retry_after
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.seen: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.clients: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def fault_for(self, body: dict[str, Any]) -> str | None:
        with self.lock:
            key = json.dumps(body["messages"])
            count = self.seen[key]
            self.seen[key] += 1
            self.requests.append(body)
        if self.forever:
            return self.faults[count % len(self.faults)]
        return self.faults[count] if count < len(self.faults) else None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that gave up are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.headers.append({k.lower(): v for k, v in self.headers.items()})
        fault = self.server.fault_for(body)
        text = self.server.reply(body["messages"])
        if fault in ("429", "500", "503", "408", "400", "401", "404"):
            error = {"error": {"message": f"asked with {self.headers['Authorization']}"}}
            self._send(int(fault), json.dumps(error))
        elif fault == "hang":
            self.server.stopping.wait(5)
            self.close_connection = True
        elif fault == "close":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif fault == "malformed":
            self._send(200, json.dumps(_completion(text))[:-20])
        elif fault == "not_json":
            self._send(200, "<html>busy</html>", kind="text/html")
        elif fault == "no_choices":
            self._send(200, json.dumps(_completion(text) | {"choices": []}))
        elif fault == "wrong_shape":
            self._send(200, json.dumps([1, {"choices": "none"}]))
        elif fault == "unparsable":
            self._send(200, json.dumps(_completion("I cannot decide, [[maybe]] A.")))
        elif fault == "empty":
            self._send(200, json.dumps(_completion(None)))
        elif fault == "cut":
            self._send(200, json.dumps(_completion(text)), promised=10_000)
            self.close_connection = True
        else:
            self._send(200, json.dumps(_completion(text)))

    def _send(
        self, status: int, body: str, *, kind: str = "application/json", promised: int | None = None
    ) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(promised or len(data)))
        if status == 429:
            self.send_header("Retry-After", self.server.retry_after)
        self.end_headers()
        self.wfile.write(data)


def _completion(said: str | dict[str, Any] | None) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": said},
    }
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "served",
        "choices": [choice | said if isinstance(said, dict) else choice],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


@contextmanager
def serving(
    *faults: str,
    forever: bool = False,
    retry_after: str = "0.05",
    reply: Reply | None = None,
) -> Generator[JudgeServer]:
    """A server in a thread; its faults come in order to every prompt, once or ``forever``."""
    server = JudgeServer(faults, forever=forever, retry_after=retry_after, reply=reply)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        for client in server.clients:
            client.close()
        server.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
