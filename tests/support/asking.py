"""Requests straight to the application, for a table of thousands of them: a client takes longer than most answers."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.types import Message


@dataclass(frozen=True, slots=True)
class Answer:
    status_code: int
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


async def ask(app: Starlette, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
    """The answer to a request for this path and query. Its body has a length, and no cookie is kept."""
    path, _, query = url.partition("?")
    sent = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
        "server": ("localhost", None),
        "client": ("127.0.0.1", 123),
    }
    bodies, over = [body], asyncio.Event()
    statuses: list[int] = []
    parts: list[bytes] = []

    async def receive() -> Message:
        if bodies:
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
            return
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            over.set()

    await app(scope, receive, send)
    (status,) = statuses
    return Answer(status, b"".join(parts))
