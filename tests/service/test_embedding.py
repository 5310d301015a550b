"""An application that embeds the service may add to it what Starlette lets it add."""

from collections.abc import Mapping
from pathlib import Path

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsvc import create_app, testing


class Marked:
    def __init__(self, app: ASGIApp, header: Mapping[str, str]) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in header.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        await self._app(scope, receive, marked)


async def test_added_middleware_sees_every_response(tmp_path: Path) -> None:
    app = create_app(testing.settings_in(tmp_path))
    app.add_middleware(Marked, header={"X-Added": "first"})
    app.add_middleware(Marked, header={"X-Added": "second"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://images") as client:
        for path in ("/nothing", "/robots.txt"):
            response = await client.get(path)
            assert response.headers.get_list("X-Added") == ["first", "second"], path
