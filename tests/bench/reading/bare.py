"""A bare Starlette application that sends given answers from memory, or files by FileResponse: the measure of reads.

`python -m tests.bench.reading.bare ANSWERS.json`: under Hypercorn as it is installed, on uvloop, without an access log;
with `--server imgsvc` under the service's own server.
"""

import argparse
import asyncio
import base64
import json
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import uvloop
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from imgsvc.service.hypercorn_fixes.server import HttpServer, Patience


def handler(answer: dict[str, Any]) -> Callable[[Request], Awaitable[Response]]:
    status, headers, body = answer["status"], dict(answer["headers"]), base64.b64decode(answer["body"])

    async def from_memory(_request: Request) -> Response:
        return Response(body, status, headers)

    async def from_file(_request: Request) -> Response:
        return FileResponse(answer["file"], status, headers)

    return from_file if answer["file"] else from_memory


async def serve(app: Starlette, server: str) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)

    async def until_over() -> None:
        await over.wait()

    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = Config()
    config.include_server_header = False
    config.errorlog = None
    print(f"listens on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    if server == "imgsvc":
        await HttpServer(app, config, Patience(30, 1024)).run(listener, until_over)
        return
    config.bind = [f"fd://{listener.detach()}"]
    await hypercorn.asyncio.serve(app, config, shutdown_trigger=until_over)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--server", choices=("hypercorn", "imgsvc"), default="hypercorn")
    given = parser.parse_args()
    routes = [Route(one["path"], handler(one)) for one in json.loads(given.answers.read_text())]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Starlette(routes=routes), given.server))


if __name__ == "__main__":
    main()
