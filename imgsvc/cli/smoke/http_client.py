"""The instance that is looked at, over the wire and within the time."""

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

import httpx

MAX_ANSWER_BYTES = 16 << 20


class Unexpected(Exception):
    """What is not as it must be, in one line."""


class Instance:
    """Every method raises Unexpected."""

    def __init__(self, url: str, token: str, seconds: float, transport: httpx.BaseTransport | None) -> None:
        self.base = url.rstrip("/")
        self.authorization = {"Authorization": f"Bearer {token}"}
        self._deadline = time.monotonic() + seconds
        self._http = httpx.Client(transport=transport, follow_redirects=True)

    def close(self) -> None:
        self._http.close()

    def grant(self, seconds: float) -> None:
        """From now on, whatever there was."""
        self._deadline = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, more than 0."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Unexpected("the time is over")
        return left

    def absolute(self, url: str) -> str:
        """The address that a browser would go to."""
        return urljoin(f"{self.base}/", url)

    def call(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """A 200, as the one who holds the token. A redirect to another host is followed without it."""
        answer = self.ask(method, f"{self.base}{path}", {**self.authorization, **(headers or {})})
        if answer.status_code != 200:
            raise Unexpected(told(answer))
        return answer

    def ask(self, method: str, url: str, headers: Mapping[str, str], **body: Any) -> httpx.Response:
        """Whatever is answered."""
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
            raise Unexpected("no answer before the time was over") from None
        except httpx.HTTPError as error:
            raise Unexpected(f"no answer: {str(error) or type(error).__name__}") from None


def _plain(headers: httpx.Headers) -> list[tuple[str, str]]:
    """Without the encoding, which is undone by now."""
    return [(name, value) for name, value in headers.multi_items() if name.lower() != "content-encoding"]


def code(answer: httpx.Response) -> str:
    """The problem's; empty where there is none."""
    try:
        return str(answer.json()["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def told(answer: httpx.Response) -> str:
    """The status, and the problem's own words; without some, it comes from something before the service."""
    try:
        return f"{answer.status_code} {answer.json()['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code}, and that not from the service"
