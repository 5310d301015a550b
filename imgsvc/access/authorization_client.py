"""One call to the authorization server, and what counts as its answer."""

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
KEPT_SECONDS = 4.0  # an idle connection: many servers hang up after 5, and a call may just be on its way then
MAX_ANSWER_BYTES = 64 * 1024


class NoAnswer(Exception):
    """None that can be used; the message says why, for the log."""


class Verdict(BaseModel):
    """200: a grant unless it says otherwise. Other members are the server's own."""

    allowed: StrictBool = True


class AuthorizationApi:
    def __init__(self, client: httpx.AsyncClient, url: str, timeout_seconds: float) -> None:
        self._client = client
        self._url = url + CHECK
        self._timeout_seconds = timeout_seconds

    async def ask(self, question: Question) -> bool:
        """Whether it is allowed. Raises NoAnswer. The time limit is for all of it, however slowly bytes drip."""
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
        """Status and body; what follows the status only matters when that is 200."""
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


@asynccontextmanager
async def authorization_client() -> AsyncIterator[httpx.AsyncClient]:
    """With its pool of connections.

    HTTP_PROXY and .netrc are left unread: questions go where AUTH_API_URL says, with the credentials that stand there.
    SSL_CERT_FILE and SSL_CERT_DIR count, for an authority of one's own.
    """
    trusted: ssl.SSLContext = await anyio.to_thread.run_sync(httpx.create_ssl_context)
    async with httpx.AsyncClient(
        verify=trusted,
        trust_env=False,
        follow_redirects=False,
        timeout=None,  # noqa: S113, the whole call has one
        limits=httpx.Limits(
            max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_IDLE, keepalive_expiry=KEPT_SECONDS
        ),
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},  # nothing that swells when unpacked
    ) as client:
        yield client
