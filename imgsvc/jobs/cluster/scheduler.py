"""`imgsvc scheduler`: Dask's scheduler, with its HTTP port on loopback and no route but health and metrics."""

import asyncio
import os
import signal
from typing import Any
from urllib.parse import urlsplit

import distributed
import structlog
import uvloop
from distributed.scheduler import DEFAULT_EXTENSIONS
from distributed.spans import SpansSchedulerExtension

from ...settings.workers import Workers
from ..lanes.libc import return_large_blocks
from . import dask_setup

log = structlog.get_logger()

EXTENSIONS = {name: one for name, one in DEFAULT_EXTENSIONS.items() if name != "stealing"}


def run(workers: Workers, host: str, port: int, http_port: int) -> int:
    """Schedule until SIGTERM or SIGINT. Returns the exit status. Raises OSError or ssl.SSLError."""
    return_large_blocks()
    dask_setup.configure()
    security = dask_setup.security(workers.ca_file, workers.certfile, workers.keyfile)
    if security.require_encryption:
        security.get_listen_args("scheduler")  # raises OSError or ssl.SSLError for what can't be used
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(security, host, port, http_port))


class _NoSpans(SpansSchedulerExtension):  # type: ignore[misc]  # distributed has no types
    """Keeps nothing of heartbeats and tickets. Dask has a new span whenever a ticket comes while none is out."""

    def observe_tasks(self, tss: Any, code: Any, span_metadata: Any) -> dict[Any, Any]:  # noqa: ARG002
        return {}

    def heartbeat(self, ws: Any, data: Any) -> None: ...


async def _serve(security: distributed.Security, host: str, port: int, http_port: int) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stopping)
    scheme = "tls" if security.require_encryption else "tcp"
    async with distributed.Scheduler(
        host=f"{scheme}://{host}",
        port=port,
        security=security,
        dashboard=False,
        dashboard_address=f"127.0.0.1:{http_port}",
        extensions={**EXTENSIONS, "spans": _NoSpans},
    ) as scheduler:
        log.info("scheduler_listens", address=scheduler.address, port=urlsplit(scheduler.address).port)
        print(f"imgsvc scheduler listens on   {scheduler.address}", flush=True)  # noqa: T201
        await stopping.wait()
    return 0


def _on_signal(stopping: asyncio.Event) -> None:
    if stopping.is_set():
        os._exit(1)
    stopping.set()
