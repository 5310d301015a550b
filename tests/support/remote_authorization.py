"""Permissions that are asked for at a real authorization server, with a clock that can be moved on."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from imgsvc.access.circuit_breaker import Breaker
from imgsvc.access.permissions import Unavailable
from imgsvc.access.remote_permissions import RemoteAuthorization
from imgsvc.settings.auth import Auth
from tests.support import authorization_server as says
from tests.support.authorization_server import Act, AuthorizationServer, authorization_server
from tests.support.speed import within

UPLOAD = ("org", "alice", "image:upload")
LIMIT_SECONDS = 10


class Clock:
    """The real one, until a test moves it on."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


clock = Clock()


@asynccontextmanager
async def remote(act: Act = says.GRANT, **auth: Any) -> AsyncIterator[tuple[RemoteAuthorization, AuthorizationServer]]:
    async with authorization_server(act) as server:
        given = Auth(**{"permissions": "remote", "api_url": server.url, "api_timeout": 5, **auth})
        async with RemoteAuthorization.opened(given, clock) as one:
            with within(LIMIT_SECONDS):
                yield one, server


async def tried(one: RemoteAuthorization, *question: str) -> bool | None:
    """None: unavailable."""
    try:
        return await one.allowed(*(question or UPLOAD))
    except Unavailable:
        return None


def skip_the_wait(breaker: Breaker) -> None:
    clock.ahead += breaker.timeout_seconds
