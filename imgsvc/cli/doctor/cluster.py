"""Checks what rendering on other machines needs: Dask, the certificates, and the scheduler."""

import http.client
import os
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from urllib.parse import urlsplit

from ...settings import Settings
from ...settings.hosts import is_loopback
from ...settings.workers import Workers
from .finding import Finding, warning, well, wrong

TIMEOUT_SECONDS = 3.0
DASHBOARD_PORT = 8787
WITHOUT = "anyone who can reach the scheduler can run code in every worker, and see every picture in flight"


def cluster(settings: Settings) -> Iterator[Finding]:
    """Tried from this machine, the service's."""
    workers = settings.workers
    if workers.engine == "local":
        yield well("pictures are rendered on this machine alone")
        return
    if find_spec("distributed") is None:
        yield wrong("[workers] engine is dask, but Dask is not installed", "install imgsvc[dask], or use ./run serve")
    if workers.insecure:
        yield warning(f"[workers] insecure is true: {WITHOUT}", "set ca_file, certfile and keyfile, and tls://")
    for name in ("ca_file", "certfile", "keyfile"):
        path = getattr(workers, name)
        if path and not os.access(path, os.R_OK):
            yield wrong(f"[workers] {name} = {path!r} can't be read", "check that it is there, and its mode")
    if not (workers.service_url or settings.service.public_url) and is_loopback(settings.server.host):
        yield warning(
            f"workers are sent to {settings.server.host}, which only this machine reaches",
            "set [workers] service_url to an address that the worker machines reach",
        )
    yield from _scheduler(workers)


def _scheduler(workers: Workers) -> Iterator[Finding]:
    where = urlsplit(workers.scheduler)
    assert where.hostname and where.port
    try:
        socket.create_connection((where.hostname, where.port), TIMEOUT_SECONDS).close()
    except OSError as error:
        text = f"the scheduler {workers.scheduler} can't be reached: {error.strerror or error}"
        yield warning(text, "start it (imgsvc scheduler); jobs wait for it, or for this machine's own processes")
        return
    yield well(f"the scheduler {workers.scheduler} accepts connections")
    if _shows_dashboard(where.hostname):
        yield warning(
            f"the scheduler's HTTP port {DASHBOARD_PORT} answers: who reaches it can look into the cluster",
            "start it with --no-dashboard, or with imgsvc scheduler, or keep others from that port",
        )


def _shows_dashboard(host: str) -> bool:
    """Whether Dask's pages can be seen. On loopback the port of `imgsvc scheduler` answers, too, but has no pages."""
    connection = http.client.HTTPConnection(host, DASHBOARD_PORT, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/status")
        return connection.getresponse().status < 400 or not is_loopback(host)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
