"""The real application in process: real files, real SQLite, an ASGI client.

It renders in threads, as the double that we give to others does; where workers matter, the mark `workers` (or
`with_workers`) gives it real worker processes. They cost a test a tenth of a second of processor time.
"""

import asyncio
import gc
import importlib
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
import pytest_asyncio
import structlog
from _pytest.runner import runtestprotocol
from starlette.applications import Starlette

from fixtures import make
from imgsvc import Settings, testing
from imgsvc.access.operator_auth import login_code, operator_token
from imgsvc.access.tokens import Tokens
from imgsvc.http.state import AppState
from tests.support import forking, once
from tests.support.certificates import share_certificates
from tests.support.memory import memory
from tests.support.rendering import Studio
from tests.support.s3 import s3 as s3  # a fixture
from tests.support.speed import within

ENDED = ("completed", "failed")
# httpx looks for it at each request that goes to an application: through all of sys.path, and it is not installed.
sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]
CACHE = "IMGSVC_SERVER_CACHE_MB"  # in the tests' own environment: 0 runs them without the memory of reads
WAIT_SECONDS = 30
LONGEST = (
    "process/test_schemathesis",
    "process/test_maintenance_s3",
    "process/test_kills",
    "process/test_workers",
    "process/test_maintenance",
    "process/test_life",
    "process/test_s3",
    "process/test_slow_clients",
    "process/test_kill_at",
    "telemetry/test_metrics",
    "telemetry/test_storage_probe",
)


@dataclass
class Service:
    """A running application and a client that is signed in as `user`."""

    app: Starlette
    settings: Settings
    http: httpx.AsyncClient
    tokens: Tokens = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = Tokens.of(self.settings)

    @property
    def state(self) -> AppState:
        state: AppState = self.app.state.service
        return state

    def bearer(self, user: str = "alice", **more: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens.issue(user, **more)}"}

    @property
    def operator(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {operator_token(self.settings)}"}

    def login_code(self) -> str:
        return login_code(operator_token(self.settings), self.state.lock.run)

    async def upload(self, data: bytes, bucket: str = "photos", user: str = "alice", **more: Any) -> httpx.Response:
        files = {"file": ("photo.jpg", data, "image/jpeg")}
        fields = {"bucket": bucket, **more}
        return await self.http.post("/api/v1/images/upload", data=fields, files=files, headers=self.bearer(user))

    async def job(self, job_id: str, **headers: str) -> dict[str, Any]:
        response = await self.http.get(f"/api/v1/images/jobs/{job_id}", headers=headers)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    async def ended(self, accepted: httpx.Response) -> dict[str, Any]:
        """The job of a 202, once it has ended, within a limit: answered then, where polling would ask three times."""
        assert accepted.status_code == 202, accepted.text
        with within(WAIT_SECONDS):
            while (job := await self.job(accepted.json()["job_id"], Prefer="wait=1"))["status"] not in ENDED:
                await anyio.sleep(0.02)
        return job

    async def completed(self, data: bytes, **more: Any) -> dict[str, Any]:
        job = await self.ended(await self.upload(data, **more))
        assert job["status"] == "completed", job
        return job

    async def variant(self, image_id: str, size: str) -> bytes:
        response = await self.http.get(f"/api/v1/images/{image_id}/direct", params={"size": size})
        assert response.status_code == 200, response.text
        return response.content

    async def sql(self, statement: str, *values: Any) -> list[Any]:
        """Beside the service, in a thread: the writer may be amid a transaction, and needs the loop to end it.

        Past the writer, so that what is in the memories of rows may be older afterwards: they are cleared.
        """

        def execute() -> list[Any]:
            with closing(sqlite3.connect(self.settings.database.path, timeout=WAIT_SECONDS)) as db, db:
                return db.execute(statement, values).fetchall()

        try:
            return await anyio.to_thread.run_sync(execute)
        finally:
            self.state.jobs.table.memory.clear()
            self.state.jobs.table.limits.memory.forget()

    def staged(self) -> list[str]:
        return sorted(path.name for path in (self.settings.data / "staging").iterdir())

    def stored(self) -> list[str]:
        root = self.settings.storage.path
        found = (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        return sorted(name for name in found if not name.startswith((".health/", ".instance")))


Starter = Callable[..., AbstractAsyncContextManager[Service]]


@asynccontextmanager
async def _service(folder: Path, sections: dict[str, dict[str, Any]], *, processes: bool) -> AsyncIterator[Service]:
    limits = {"max_uploads": 1_000_000, **sections.pop("rate_limit", {})}
    server = {**({"cache_mb": os.environ[CACHE]} if CACHE in os.environ else {}), **sections.pop("server", {})}
    settings = testing.settings_in(folder, rate_limit=limits, server=server, **sections)
    async with testing.serving(settings, processes=processes) as (app, http):
        http.headers.pop("Authorization", None)
        yield Service(app, settings, http)


def service(folder: Path, **sections: dict[str, Any]) -> AbstractAsyncContextManager[Service]:
    """The test double that we give to others, in a folder that can be opened again."""
    return _service(folder, sections, processes=False)


def with_workers(folder: Path, **sections: dict[str, Any]) -> AbstractAsyncContextManager[Service]:
    return _service(folder, sections, processes=True)


async def held_service(folder: Path, **sections: dict[str, Any]) -> AsyncIterator[Service]:
    """For a fixture that many tests share: one task opens and closes the service, as its cancel scopes want."""
    started, over = asyncio.Queue[Service](), asyncio.Event()

    async def hold() -> None:
        async with service(folder, **sections) as one:
            started.put_nowait(one)
            await over.wait()

    holder, first = asyncio.create_task(hold()), asyncio.create_task(started.get())
    await asyncio.wait({holder, first}, return_when=asyncio.FIRST_COMPLETED)
    if holder.done():
        await holder
    yield await first
    over.set()
    await holder


def shared_service(**sections: dict[str, Any]) -> Any:
    """A fixture: one service for all tests of a module."""

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
        async for one in held_service(tmp_path_factory.mktemp("shared"), **sections):
            yield one

    return shared


def pytest_configure() -> None:
    """The folders of the tests are in memory where that is possible: no test waits for a disk."""
    if folder := memory():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))
    share_certificates()
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure([*structlog.get_config()["processors"][:-1], renderer])  # rich takes 20 ms for a traceback


def pytest_sessionfinish() -> None:
    forking.close_shared()
    once.forget()


@pytest.hookimpl(trylast=True)  # once those that are not wanted are left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The files that take longest come first: one of them at the end would be waited for by idle processors."""
    if not config.pluginmanager.hasplugin("randomly"):
        places = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(f"{item.path.parent.name}/{item.path.stem}", len(places)))
        open_two_browsers(items, getattr(config, "workerinput", {}).get("workercount", 1))


def open_two_browsers(items: list[pytest.Item], workers: int) -> None:
    """Begin the shares of the second and the third process with the tests of pages: others take from a share's end.

    A browser takes a second of processor time to start, and then it has compiled nothing.
    """
    pages = {item for item in items if "browser_until_the_end" in getattr(item, "fixturenames", ())}
    files = sorted({item.path for item in pages})
    earlier = set(files[: 2 * len(files) // 5])  # they take as long as the others
    first, second = (
        [item for item in items if item in pages and (item.path in earlier) is one] for one in (True, False)
    )
    share = len(items) // workers
    if workers > 2 and max(len(first), len(second)) < share:
        others = [item for item in items if item not in pages]
        end = 2 * share - len(first)
        items[:] = [*others[:share], *first, *others[share:end], *second, *others[end:]]


def import_a_share_first(config: pytest.Config) -> None:
    """Each worker of a run begins with other files: in a fresh working copy it compiles a share of them, not all."""
    worker = getattr(config, "workerinput", None)
    if worker is None:
        return
    chosen = [(config.invocation_params.dir / one.partition("::")[0]).resolve() for one in config.args]
    found = sorted((config.rootpath / "tests").rglob("test_*.py"))
    files = [file for file in found if any(map(file.is_relative_to, chosen))]
    for file in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
        with suppress(Exception, pytest.skip.Exception):  # collecting it says why
            importlib.import_module(".".join(file.relative_to(config.rootpath).with_suffix("").parts))


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A worker of xdist reports a test in one message instead of five: they take a millisecond of both processes."""
    option = item.config.option
    if not hasattr(item.config, "workerinput") or option.durations is not None or option.xmlpath is not None:
        return None
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    passed = all(report.passed for report in reports)
    for report in reports:
        if report.when == "call" or not passed:
            item.ihook.pytest_runtest_logreport(report=report)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("randomly"):
        seed = config.getoption("randomly_seed")
        terminalreporter.write_line(f"the same order again: -p randomly --randomly-seed {seed}")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Nothing that is imported or collected goes away again: no collection looks at it, now or later."""
    gc.disable()
    try:
        import_a_share_first(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(10_000)  # by default a start of the application is looked through a hundred times


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser_until_the_end() -> AsyncIterator[None]:
    yield
    from tests.support.browser import chromium  # here, since every test imports this file

    await chromium.close()


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Starter:
    """Start a service in this test's own folder: `async with start(uploads={"max_size_mb": 1}) as service:`."""
    serving = service if request.node.get_closest_marker("workers") is None else with_workers

    def starter(**sections: dict[str, Any]) -> AbstractAsyncContextManager[Service]:
        return serving(tmp_path / "data", **sections)

    return starter


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path)


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A small JPEG: rendering one of 640 by 480 takes seven times as long."""
    return make.jpeg(160, 120)
