"""Request lines: what structlog makes of the same event, in order with all other lines, and none is lost."""

import io
import json
import os
import subprocess
import sys
import threading

from imgsvc.telemetry import line_writer
from imgsvc.telemetry.line_writer import LineWriter
from tests.support.server_process import ROOT
from tests.support.speed import seconds

BOTH = """
import structlog
from imgsvc.http.wire.request_lines import RequestLines
from imgsvc.settings.server import Log
from imgsvc.telemetry import logs
logs.configure(Log(json_lines="true"))
structlog.contextvars.bind_contextvars(trace_id="of-both")
fields = {"method": "GET", "path": "/a%20%22b%C3%A9", "status": 404, "ms": 1.2, "client": "2001:db8::1"}
scope = {"method": "GET", "path": '/a "b\\u00e9', "client": ("2001:db8::1", 1)}
RequestLines("INFO").write(scope, 404, 0.00123, "of-both")
structlog.get_logger().info("request", **fields)
for number in range(5):
    RequestLines("INFO").write({"method": "GET", "path": f"/{number}", "client": None}, 0, 0.0, "of-both")
    RequestLines("WARNING").write({"method": "GET", "path": "/unwanted", "client": None}, 0, 0.0, "of-both")
"""


def test_line_is_what_structlog_makes_of_the_event() -> None:
    environ = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", BOTH]
    lines = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=seconds(60), check=True).stderr
    ours, theirs, *rest = lines.splitlines()
    before, _, moment = ours.partition('"timestamp": ')
    assert theirs.startswith(before)
    assert len(moment) == len(theirs) - len(before) - len('"timestamp": ')
    assert [json.loads(line)["path"] for line in rest] == [f"/{number}" for number in range(5)]  # written at the end


def test_lines_keep_their_order() -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    writer.write_soon("a\n")
    writer.write_soon("b\n")
    writer.write("c\n")
    assert stream.getvalue() == "a\nb\nc\n"


class Blocked(io.StringIO):
    """An output that takes nothing until it is opened: a full pipe."""

    def __init__(self) -> None:
        super().__init__()
        self.opened, self.tried = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.tried.set()
        assert self.opened.wait(30)
        return super().write(text)


def test_output_that_takes_nothing_is_waited_for_by_the_thread_only() -> None:
    stream = Blocked()
    writer = LineWriter(stream)
    writer.write_soon("0\n")
    assert stream.tried.wait(30)
    for number in range(1, 100):
        writer.write_soon(f"{number}\n")
    assert stream.getvalue() == ""
    stream.opened.set()
    writer.flush()
    assert stream.getvalue() == "".join(f"{number}\n" for number in range(100))


def test_line_beyond_the_most_that_wait_is_waited_for_and_not_dropped() -> None:
    stream = Blocked()
    writer = LineWriter(stream)
    writer.write_soon("first\n")
    assert stream.tried.wait(30)
    ended = threading.Event()

    def write() -> None:
        for _ in range(line_writer.MAX_WAITING + 1):
            writer.write_soon("x\n")
        ended.set()

    writing = threading.Thread(target=write)
    writing.start()
    assert not ended.wait(0.2)
    stream.opened.set()
    writing.join(30)
    writer.flush()
    assert stream.getvalue().count("x\n") == line_writer.MAX_WAITING + 1
