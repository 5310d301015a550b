"""A server that is asked, and the bare one that sends the same answers."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.reading.load import Connection, Read, completed
from tests.support.server_process import ROOT, ServerProcess

OWN = ("date", "connection", "transfer-encoding")  # headers that the bare handler's server adds itself
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Subject:
    """A server that is asked: its address, its process, and what its rounds have measured."""

    url: str
    pid: int

    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def round(self, read: Read, connections: int, seconds: int) -> tuple[float, float]:
        """(microseconds of processor time for each request, requests per second)."""
        before = self.processor_seconds()
        answers = completed(self.url, read, connections, seconds)
        if not answers:  # on a machine that is too busy
            return float("inf"), 0.0
        return 1e6 * (self.processor_seconds() - before) / answers, answers / seconds


async def answers(server: ServerProcess, reads: list[Read]) -> list[dict[str, Any]]:
    """What the service answers, for the bare handler, each at a path of its own."""
    connection, found = await Connection.opened(server.url), []
    files = {path.stat().st_size: str(path) for path in (server.folder / "storage").rglob("*.webp")}
    for number, read in enumerate(reads):
        head, body = await connection.ask(read)
        lines = [line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:] if line]
        headers = {name: value for name, _, value in lines if name not in OWN}
        file = files[len(body)] if "FileResponse" in read.name else ""
        sent = base64.b64encode(b"" if file else body).decode()
        found.append({"path": f"/{number}", "status": int(head[9:12]), "headers": headers, "body": sent, "file": file})
    connection.close()
    return found


@contextmanager
def bare(folder: Path, given: list[dict[str, Any]], server: str) -> Iterator[Subject]:
    given_in = folder / "answers.json"
    given_in.write_text(json.dumps(given))
    command = [sys.executable, "-m", "tests.bench.reading.bare", str(given_in), "--server", server]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield Subject(process.stdout.readline().split()[-1], process.pid)
        finally:
            process.terminate()
