"""Calls the authorization server and validates its response."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import httpx
import structlog
from pydantic import BaseModel, StrictBool, ValidationError

from .decision_cache import Question

CHECK = "/api/v1/authorization/check"
MAX_CONNECTIONS, MAX_IDLE = 100, 20
KEPT_SECONDS = 4.0  # of an idle connection: many servers close it after 5, possibly while a call is being sent
MAX_ANSWER_BYTES = 64 * 1024


class NoAnswer(Exception):
    """There was no usable response. The message gives the reason, for the log."""


class Verdict(BaseModel):
    """The body of a 200: a grant unless `allowed` is false. Other members are ignored."""

    allowed: StrictBool = True


class AuthorizationApi:
    def __init__(self, client: httpx.AsyncClient, url: str, timeout_seconds: float) -> None:
        self._client = client
        self._url = url + CHECK
        self._timeout_seconds = timeout_seconds

    async def ask(self, question: Question) -> bool:
        """Whether the permission is granted. Raises NoAnswer. The time limit is for the whole call."""
        try:
            with anyio.fail_after(self._timeout_seconds):
                status, body = await self._post(question)
        except TimeoutError:
            raise NoAnswer(f"no answer within {self._timeout_seconds:g} seconds") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise NoAnswer(f"{type(error).__name__}: {error}".rstrip(": ")) from None
        if status == 403:
            return False
        if status != 200:
            raise NoAnswer(f"it answered {status}")
        try:
            return Verdict.model_validate_json(body).allowed
        except ValidationError:
            raise NoAnswer("its answer is not a JSON object with a boolean member 'allowed'") from None

    async def _post(self, question: Question) -> tuple[int, bytes]:
        """Status and body. The body is read only if the status is 200."""
        trace_id = structlog.contextvars.get_contextvars().get("trace_id")
        headers = {"X-Trace-ID": str(trace_id)} if trace_id else {}
        body = b""
        async with self._client.stream("POST", self._url, json=question._asdict(), headers=headers) as answer:
            if answer.status_code == 200:
                async for chunk in answer.aiter_raw():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise NoAnswer(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
        return answer.status_code, body


def trusted_certificates() -> ssl.SSLContext:
    """Reads the certificates of authorities, which takes some ten milliseconds: call it in a thread."""
    return httpx.create_ssl_context()


@asynccontextmanager
async def authorization_client() -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client with a connection pool.

    HTTP_PROXY and .netrc are ignored: calls go to AUTH_API_URL, with the credentials in it. SSL_CERT_FILE and
    SSL_CERT_DIR are honoured, for a private certificate authority.
    """
    trusted = await anyio.to_thread.run_sync(trusted_certificates)
    async with httpx.AsyncClient(
        verify=trusted,
        trust_env=False,
        follow_redirects=False,
        timeout=None,  # noqa: S113, the whole call has one
        limits=httpx.Limits(
            max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_IDLE, keepalive_expiry=KEPT_SECONDS
        ),
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},  # nothing that grows when unpacked
    ) as client:
        yield client
