"""A receiver of webhooks: an HTTP server in a thread that keeps messages and answers with a chosen status."""

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import anyio
import anyio.to_thread

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
NEXT_SECRET = "whsec_" + base64.b64encode(b"n" * 32).decode()
WAIT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Received:
    headers: dict[str, str]  # names in lower case
    body: bytes
    path: str

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def type(self) -> str:
        return str(self.json["type"])


class Receiver:
    """`answer` gets each request and returns a status, or None to close the connection without one."""

    def __init__(self, answer: Callable[[Received], int | None] = lambda _: 204) -> None:
        self.answer = answer
        self.received: list[Received] = []
        self._more = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): text for name, text in self.headers.items()}
                status = receiver._take(Received(headers, body, self.path))
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def _take(self, one: Received) -> int | None:
        with self._more:
            self.received.append(one)
            self._more.notify_all()
        return self.answer(one)

    def wait(self, count: int) -> list[Received]:
        """What was received, once it is so many. Raises AssertionError after a while."""
        with self._more:
            there = self._more.wait_for(lambda: len(self.received) >= count, WAIT_SECONDS)
            assert there, f"{len(self.received)} of {count} received: {[one.type for one in self.received]}"
            return list(self.received)

    async def gets(self, count: int) -> list[Received]:
        return await anyio.to_thread.run_sync(self.wait, count)

    def settings(self, name: str = "app", **more: Any) -> dict[str, Any]:
        """Of one endpoint."""
        return {"name": name, "url": self.url, "secret": SECRET, "allow_private": True, **more}
