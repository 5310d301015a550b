"""The real application for your own tests: in process, without a port, set-up or network.

    async with imgsvc.testing.client() as client:
        receipt = (await client.upload(imgsvc.testing.picture())).json()
        job = await client.ready(receipt["job_id"])

`pytest_plugins = ["imgsvc.testing"]` provides the fixture `imgsvc_client`. Pictures are rendered in this process: use
it only with your own pictures, never with untrusted ones.
"""

import asyncio
import io
import json
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio
import anyio.to_thread
import httpx
from starlette.applications import Starlette

from .access.tokens import DEFAULT_ORG, Tokens
from .jobs.failures import IO_ERROR, SOURCE_MISSING
from .jobs.lanes.cage import Posture
from .jobs.lanes.files import SourceGone, open_files
from .jobs.lanes.messages import Answer, Outcome, Task
from .jobs.lanes.task import perform
from .service.app import create_app
from .service.assembly import Doubles
from .settings import Settings
from .storage.base import Storage
from .storage.memory import MemoryStorage

USER = "tester"
READY_SECONDS = 60
UPLOAD = "/api/v1/images/upload"
T = TypeVar("T")


class Client(httpx.AsyncClient):
    """An httpx client of the application, signed in as `tester` unless an external issuer signs the tokens."""

    def __init__(self, transport: httpx.ASGITransport, tokens: Tokens) -> None:
        super().__init__(transport=transport, base_url="http://localhost", timeout=READY_SECONDS)
        self._tokens = tokens
        if tokens.ours:
            self.headers["Authorization"] = f"Bearer {self.token()}"

    def token(self, sub: str = USER, org: str = DEFAULT_ORG, permissions: tuple[str, ...] = (), ttl: int = 3600) -> str:
        """A token of this service; `ttl` in seconds."""
        return self._tokens.issue(sub, org, permissions, ttl)

    async def upload(self, data: bytes, bucket: str = "test", **metadata: Any) -> httpx.Response:
        """Upload a picture as the signed-in user; keywords become its metadata."""
        fields = {"bucket": bucket, "metadata": json.dumps(metadata)}
        return await self.post(UPLOAD, data=fields, files={"file": ("picture", data)})

    async def ready(self, job_id: str) -> dict[str, Any]:
        """The job once it is completed. Raises AssertionError if it failed, TimeoutError after a minute."""
        with anyio.fail_after(READY_SECONDS):
            while True:
                answer = await self.get(f"/api/v1/images/jobs/{job_id}", headers={"Prefer": "wait=30"})
                answer.raise_for_status()
                job: dict[str, Any] = answer.json()
                if job["status"] == "completed":
                    return job
                assert job["status"] != "failed", f"the job failed: {job['error']}"


class InlineLane:
    """Renders in a thread of this process: works from a script, from standard input, and starts at once."""

    local = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.pid: int | None = None
        self.jobs_done = self.restarts = 0
        self.posture: Posture | None = None
        self.decoders: Mapping[str, str] = {}

    async def start(self) -> None:
        return

    async def run(self, task: Task) -> Outcome:
        try:
            message = await anyio.to_thread.run_sync(perform_here, task)
        except SourceGone:
            return SOURCE_MISSING
        except OSError:
            return IO_ERROR
        self.jobs_done += 1
        return Answer.model_validate_json(json.dumps(message)).result

    def kill(self) -> None:
        """A thread can't be killed: the task ends by itself, and its result is dropped."""

    def shut(self) -> None:
        self.alive = False

    async def close(self) -> None:
        self.alive = False


def perform_here(task: Task) -> dict[str, Any]:
    """Perform a task in this thread. Raises SourceGone or OSError."""
    with ExitStack() as stack:
        files = open_files(task)
        source = stack.enter_context(open(files.source, "rb"))  # noqa: PTH123
        outputs = {name: stack.enter_context(open(one, "r+b")) for name, one in files.outputs.items()}  # noqa: PTH123
        return perform(asdict(task), source, outputs)


@asynccontextmanager
async def client(
    *,
    storage: Literal["local", "memory"] = "local",
    processes: bool = False,
    signed_urls: bool = False,
    **sections: dict[str, Any],
) -> AsyncIterator[Client]:
    """A new service in a temporary folder, and a client for it; nothing is left behind.

    `processes=True` renders in real worker processes; `signed_urls=True` makes reading private. Keywords are
    sections of the settings: `client(images={"sizes": {"tiny": 32}})`.
    """
    with tempfile.TemporaryDirectory(prefix="imgsvc-", ignore_cleanup_errors=True) as name:
        settings = settings_in(Path(name), storage={"signed_urls": signed_urls}, **sections)
        kept = MemoryStorage() if storage == "memory" else None
        async with _in_one_task(serving(settings, storage=kept, processes=processes)) as (_, ready):
            yield ready


@asynccontextmanager
async def _in_one_task(context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave `context` in one separate task.

    pytest-asyncio runs a fixture's code before and after its `yield` in two tasks, but the application's task groups
    must be left by the task that entered them.
    """
    opened: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def hold() -> None:
        async with context as value:
            opened.set_result(value)
            await leave.wait()

    holder = asyncio.create_task(hold())
    either: tuple[asyncio.Future[Any], ...] = (holder, opened)
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            await holder  # raises the error that prevented opening
        yield opened.result()
    finally:
        if not opened.done():
            holder.cancel()
        leave.set()
        await holder


@asynccontextmanager
async def serving(
    settings: Settings, *, storage: Storage | None = None, others: Sequence[Storage] = (), processes: bool = False
) -> AsyncIterator[tuple[Starlette, Client]]:
    """The application with these settings, opened, and a client for it. Its folder stays and can be reopened."""
    lanes = None if processes else (InlineLane("preview"), InlineLane("render"))
    app = create_app(settings, Doubles(lanes=lanes, storage=storage, others=others))
    async with app.router.lifespan_context(app):
        await app.state.service.telemetry.health.known()  # the workers are there
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with Client(transport, Tokens.of(settings)) as ready:
            yield app, ready


def settings_in(folder: Path, **sections: dict[str, Any]) -> Settings:
    """Settings with all files in `folder`; a keyword for each section that differs from the defaults."""
    given = {name: dict(values) for name, values in sections.items()}
    given["database"] = {"path": folder / "imgsvc.db", **given.get("database", {})}
    given["storage"] = {"path": folder / "storage", "reserve_mb": 0, **given.get("storage", {})}
    given["workers"] = {"count": 1, "memory_mb": 2048, **given.get("workers", {})}
    return Settings(**given)  # type: ignore[arg-type]


def picture(width: int = 320, height: int = 200, colour: str = "#c03030") -> bytes:
    """A small JPEG, half of it in `colour`, as a camera held sideways stores it."""
    from PIL import Image

    image = Image.new("RGB", (width, height), "#f0f0f0")
    image.paste(colour, (0, 0, width * 6 // 10, height))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", exif=exif, quality=90)
    return buffer.getvalue()


try:
    import pytest_asyncio
except ImportError:  # without pytest there is no fixture; the rest of this module does not need it
    pass
else:

    @pytest_asyncio.fixture
    async def imgsvc_client() -> AsyncIterator[Client]:
        """A new service and a client for it."""
        async with client() as ready:
            yield ready
