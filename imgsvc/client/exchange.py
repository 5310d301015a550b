"""Calls and answers as httpx has them, for both clients."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from .flows import Answer, Call

TIMEOUT_SECONDS = 60.0  # without a byte; longer than a long-poll, and than the pauses of an event stream


@dataclass(frozen=True, slots=True)
class Service:
    """Where the service is, and what its requests carry."""

    url: str
    headers: Mapping[str, str]

    @classmethod
    def of(cls, url: str, token: str | None) -> "Service":
        return cls(url.rstrip("/"), {"Authorization": f"Bearer {token}"} if token else {})

    def absolute(self, url: str) -> str:
        return f"{self.url}{url}" if url.startswith("/") else url

    def request(self, call: Call) -> dict[str, Any]:
        """The keywords of httpx, without the body. A whole URL leads elsewhere, which gets no token."""
        ours = call.path.startswith("/")
        return {
            "method": call.method,
            "url": self.absolute(call.path),
            "params": dict(call.params) or None,
            "headers": {**(self.headers if ours else {}), **call.headers},
        }


def answer_of(found: httpx.Response) -> Answer:
    """Of a response that has been read."""
    return Answer(found.status_code, {name.lower(): text for name, text in found.headers.items()}, found.content)


def unanswered(error: httpx.HTTPError) -> Answer:
    return Answer(None, {}, (str(error) or type(error).__name__).encode())
