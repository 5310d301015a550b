"""The service as `./run bench uploads` sees it: uploads by HTTP, and what became of them by its database.

Asking the service would cost the processor time that is measured. A row holds what a client would be answered.
"""

import http.client
import os
import re
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.support.server_process import ServerProcess, bearer

PATH = "/api/v1/images/upload?bucket=b"
COMMITS = re.compile(r'^\S*database_query_duration_seconds_count\{operation="commit"\} (\S+)$', re.MULTILINE)
TICKS = os.sysconf("SC_CLK_TCK")


class Uploader:
    """One connection, whose requests are timed."""

    def __init__(self, url: str, data: bytes, user: str = "alice") -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
        self._headers = {"Content-Type": "image/jpeg", **bearer(user)}
        self._data = data

    def upload(self) -> float:
        """Seconds from the first byte of the request to the last one of its 202."""
        began = time.perf_counter()
        self._connection.request("POST", PATH, self._data, self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status == 202, body
        return time.perf_counter() - began

    def close(self) -> None:
        self._connection.close()


def upload_at_once(url: str, data: bytes, count: int, users: int) -> None:
    """As many connections as uploads. Returns after the last 202."""

    def one(number: int) -> None:
        uploader = Uploader(url, data, f"user{number % users}")
        uploader.upload()
        uploader.close()

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(one, range(count)))


class Watched:
    """A running service: its rows, processor seconds and commits."""

    def __init__(self, server: ServerProcess) -> None:
        self.url = server.url
        self._server = server
        self._rows = sqlite3.connect(f"file:{server.places.database}?mode=ro", uri=True, isolation_level=None)

    @property
    def completed(self) -> int:
        return self._count("status = 'completed'")

    @property
    def without_preview(self) -> int:
        return self._count("preview = 'wanted'")

    @property
    def not_completed(self) -> int:
        return self._count("status != 'completed' AND deleted_at IS NULL")

    def _count(self, condition: str) -> int:
        return int(self._rows.execute(f"SELECT count(*) FROM processing_jobs WHERE {condition}").fetchone()[0])

    def all_done(self, pause: float = 0.01) -> float:
        """When (time.perf_counter) all jobs were completed."""
        while self.not_completed:
            time.sleep(pause)
        return time.perf_counter()

    def all_previewed(self, pause: float = 0.01) -> float:
        """When (time.perf_counter) no job waited for its thumbnail any more."""
        while self.without_preview:
            time.sleep(pause)
        return time.perf_counter()

    @property
    def processor_seconds(self) -> float:
        """Of the service, its workers, and the pictures' processes that have ended (getrusage(2), by proc(5))."""
        return sum(_spent(pid) for pid in (self._server.service_pid, *self._server.workers()))

    @property
    def commits(self) -> int:
        text = httpx.get(f"{self.url}/metrics", headers=self._server.operator).text
        found = COMMITS.search(text)
        assert found, text[:500]
        return int(float(found[1]))


def _spent(pid: int) -> float:
    """Its own time; of a worker also that of its children. The service's have none that end meanwhile."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / TICKS
