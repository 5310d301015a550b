"""The application of a test behind a real socket, in the test's own process: its state can be looked into."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hypercorn.config import Config
from starlette.applications import Starlette

from imgsvc.service.hypercorn_fixes.server import HttpServer, Patience


@asynccontextmanager
async def listening(app: Starlette) -> AsyncIterator[str]:
    """The URL at which the application is served, on a free port of loopback."""
    config, over = Config(), asyncio.Event()
    config.max_app_queue_size, config.accesslog, config.graceful_timeout = 2, None, 1

    async def stop() -> None:
        await over.wait()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(HttpServer(app, config, Patience(5, 1)).run(listener, stop))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            await serving
