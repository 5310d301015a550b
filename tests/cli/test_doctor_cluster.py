"""What doctor says of rendering on other machines."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from imgsvc import Settings
from imgsvc.cli.doctor import cluster
from imgsvc.settings.workers import Workers


def said(**workers: Any) -> list[tuple[str, str]]:
    settings = Settings(workers=Workers(engine="dask", **workers))
    return [(one.status, one.said) for one in cluster.cluster(settings)]


@contextmanager
def answering(status: int) -> Iterator[int]:
    """The port of an HTTP server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_all_is_well_where_pictures_are_rendered_here() -> None:
    assert [one.status for one in cluster.cluster(Settings())] == ["well"]


def test_scheduler_that_is_away_insecure_and_unreachable_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(cluster, "find_spec", lambda _: None)
    found = said(scheduler=f"tcp://127.0.0.1:{port}", insecure=True)
    assert [status for status, _ in found] == ["wrong", "warning", "warning", "warning"]
    words = " ".join(text for _, text in found)
    for part in ("Dask is not installed", "insecure is true", "which only this machine reaches", "can't be reached"):
        assert part in words


@pytest.mark.parametrize(("status", "warned"), [(200, True), (404, False)])
def test_pages_of_the_scheduler(monkeypatch: pytest.MonkeyPatch, status: int, warned: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as scheduler, answering(status) as port:
        monkeypatch.setattr(cluster, "DASHBOARD_PORT", port)
        address = f"tcp://127.0.0.1:{scheduler.getsockname()[1]}"
        found = said(scheduler=address, insecure=True, service_url="http://10.0.0.2:8000")
    assert ("well", f"the scheduler {address} accepts connections") in found
    assert any("can look into the cluster" in text for _, text in found) is warned


def test_certificates_that_can_not_be_read(tmp_path: Path) -> None:
    files = {name: str(tmp_path / name) for name in ("ca_file", "certfile", "keyfile")}
    found = said(scheduler="tls://127.0.0.1:1", **files)
    assert sum("can't be read" in text for _, text in found) == 3
