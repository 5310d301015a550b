"""A client of the tested instance, with a total time limit."""

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

import httpx

MAX_ANSWER_BYTES = 16 << 20


class Unexpected(Exception):
    """An unexpected result, in one line."""


class TimeIsOver(Unexpected):
    """The time limit of the whole tour was reached."""


class Instance:
    """The tested instance. Every method may raise Unexpected."""

    def __init__(self, url: str, token: str, seconds: float, transport: httpx.BaseTransport | None) -> None:
        self.base = url.rstrip("/")
        self.authorization = {"Authorization": f"Bearer {token}"}
        self._deadline = time.monotonic() + seconds
        self._http = httpx.Client(transport=transport, follow_redirects=True)

    def close(self) -> None:
        self._http.close()

    def grant(self, seconds: float) -> None:
        """Set the time limit to `seconds` from now."""
        self._deadline = time.monotonic() + seconds

    def left(self) -> float:
        """The remaining seconds, more than 0. Raises TimeIsOver."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeIsOver("the time limit was reached")
        return left

    def absolute(self, url: str) -> str:
        """Resolve a URL as a browser would."""
        return urljoin(f"{self.base}/", url)

    def call(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Send a request with the token and expect 200. A redirect to another host is followed without the token."""
        answer = self.ask(method, f"{self.base}{path}", {**self.authorization, **(headers or {})})
        if answer.status_code != 200:
            raise Unexpected(outcome(answer))
        return answer

    def ask(self, method: str, url: str, headers: Mapping[str, str], **body: Any) -> httpx.Response:
        """Send a request and return any response."""
        try:
            with self._http.stream(method, url, headers=headers, timeout=self.left(), **body) as answer:
                content = b""
                for chunk in answer.iter_bytes():
                    content += chunk
                    self.left()
                    if len(content) > MAX_ANSWER_BYTES:
                        raise Unexpected(f"answers with more than {MAX_ANSWER_BYTES:,} bytes")
            return httpx.Response(answer.status_code, headers=_plain(answer.headers), content=content)
        except httpx.TimeoutException:
            raise TimeIsOver("no response within the time limit") from None
        except httpx.HTTPError as error:
            raise Unexpected(f"no response: {str(error) or type(error).__name__}") from None


def _plain(headers: httpx.Headers) -> list[tuple[str, str]]:
    """The headers without Content-Encoding, which has been decoded."""
    return [(name, value) for name, value in headers.multi_items() if name.lower() != "content-encoding"]


def code(answer: httpx.Response) -> str:
    """The error code of a response; empty if there is none."""
    try:
        return str(answer.json()["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def outcome(answer: httpx.Response) -> str:
    """The status and the error's detail. Without a detail the response comes from something in front of the service."""
    try:
        return f"{answer.status_code} {answer.json()['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code}, but not from the service"
