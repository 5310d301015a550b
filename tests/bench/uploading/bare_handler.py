"""A bare handler that takes an upload: writes it to a file in one go, syncs what the service syncs, and answers 202.
It removes the file after that, as the service does.

`python -m tests.bench.uploading.bare_handler FOLDER`, under Hypercorn as it is installed, on uvloop.
"""

import asyncio
import sys
import uuid
from pathlib import Path

import anyio
import anyio.to_thread
import uvloop
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.bench.reading.bare import serve
from tests.bench.uploading.syncs import Commits, store

ANSWER = b'{"job_id": "%s", "image_id": "%s", "status_url": "http://127.0.0.1/", "message": "accepted"}' % (
    (b"0" * 36,) * 2
)


def application(folder: Path) -> Starlette:
    commits = Commits(folder / "log")

    def take(body: bytes) -> Path:
        name = str(uuid.uuid4())
        part = folder / f"{name}.part"
        with part.open("wb") as stream:
            stream.write(body)
            store(stream, part, folder / name)
        commits.commit()
        return folder / name

    async def upload(request: Request) -> Response:
        taken = await anyio.to_thread.run_sync(take, await request.body())
        removal = BackgroundTask(taken.unlink)  # which Starlette calls in a thread
        return Response(ANSWER, 202, media_type="application/json", background=removal)

    return Starlette(routes=[Route("/api/v1/images/upload", upload, methods=["POST"])])


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(application(Path(sys.argv[1])), "hypercorn"))


if __name__ == "__main__":
    main()
