"""What the operator reads: one line for each request and each step of a job, and nothing secret in any."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import structlog.testing

from fixtures import make
from imgsvc.access.tokens import Tokens
from tests.conftest import Starter
from tests.support.s3 import S3Server
from tests.support.server_process import ROOT, SECRET, InlineServer, ServerProcess, until
from tests.support.speed import seconds

pytestmark = pytest.mark.process

TINY = make.tiny()
UPLOAD = "/api/v1/images/upload"
IN_QUERY = "in-the-query-string"


def entries(server: ServerProcess) -> list[dict[str, Any]]:
    """Every line of the log so far, each of which is a JSON object."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert all(isinstance(line, dict) and line["timestamp"] and line["level"] and line["event"] for line in lines)
    return lines


def of(server: ServerProcess, **wanted: Any) -> list[dict[str, Any]]:
    return [entry for entry in entries(server) if wanted.items() <= entry.items()]


def send(server: ServerProcess, data: bytes, token: str, trace_id: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", "X-Trace-ID": trace_id, "Content-Type": "image/jpeg"}
    return server.http.post(f"{server.url}{UPLOAD}?bucket=b&note={IN_QUERY}", content=data, headers=headers)


def test_json_lines_of_a_whole_session(tmp_path: Path) -> None:
    token = Tokens(SECRET, "HS256").issue("alice")
    with InlineServer(tmp_path, LOG_JSON="true", LOG_LEVEL="DEBUG") as server:
        good, bad = (
            send(server, TINY, token, "of-the-good"),
            send(server, make.jpeg(1000, 800)[:80_000], token, "bad-one"),
        )
        done = server.job_ended(good.json()["job_id"])
        assert server.job_ended(bad.json()["job_id"])["status"] == "failed"
        send(server, TINY, f"{token}x", "bad-token")
        server.http.get(f"{server.url}/nothing?token={token}", headers={"X-Trace-ID": "nothing"})
        deleting = {"Authorization": f"Bearer {token}"}
        assert server.http.delete(f"{server.url}/api/v1/images/{done['image_id']}", headers=deleting).is_success
        assert server.stop() == 0

        (line,) = of(server, event="request", trace_id="of-the-good")
        assert line.items() >= {"method": "POST", "path": UPLOAD, "status": 202, "client": "127.0.0.1"}.items()
        assert 0 < line["ms"] < 30_000
        assert [line["status"] for line in of(server, event="request", trace_id="bad-token")] == [401]
        assert [line["status"] for line in of(server, event="request", trace_id="nothing", path="/nothing")] == [404]
        for event, trace_id, receipt in (
            ("preview_ready", "of-the-good", good),
            ("job_completed", "of-the-good", good),
            ("job_failed", "bad-one", bad),
        ):
            (line,) = of(server, event=event, job_id=receipt.json()["job_id"])
            assert line["trace_id"] == trace_id
        assert of(server, event="job_failed")[0]["level"] == "warning"
        assert of(server, event="job_failed")[0]["code"] == "image_unreadable"
        assert of(server, event="stopped")
        log = server.log.read_text()
        for secret in (SECRET, token, token.rpartition(".")[2], IN_QUERY, "Bearer", "?"):
            assert secret not in log, secret


def test_libraries_tell_nothing_secret_for_debugging(tmp_path: Path, s3: S3Server) -> None:
    """botocore would print what it signs and with what."""
    environment = {**s3.environment(s3.bucket()), "IMAGE_SIZES": "medium=60", "IMGSVC_STORAGE_SIGNED_URLS": "true"}
    token = Tokens(SECRET, "HS256").issue("alice")
    with (
        ServerProcess(tmp_path, LOG_JSON="true", LOG_LEVEL="DEBUG", **environment) as server,
        httpx.Client(headers={"Authorization": f"Bearer {token}"}) as client,
    ):
        files = {"file": ("photo.jpg", TINY)}
        sent = client.post(f"{server.url}{UPLOAD}", data={"bucket": "b"}, files=files)
        job = server.job_ended(sent.json()["job_id"])
        url = client.get(f"{server.url}/api/v1/images/{job['image_id']}").json()["url"]
        assert "X-Amz-Signature=" in url
        assert of(server, level="debug", event="worker_started")
        log = server.log.read_text()
        for secret in (token, token.rpartition(".")[2], url.rpartition("=")[2], "AWS4", "uthorization", "ignature"):
            assert secret not in log, secret


def test_variant_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    with InlineServer(tmp_path, LOG_JSON="true") as server:
        job = server.job_ended(server.upload(TINY).json()["job_id"])
        (path,) = (name for name in server.files("storage") if name.endswith("_medium.webp"))
        server.leave_unchecked("the file of a variant is cut short on purpose")
        os.truncate(server.folder / "storage" / path, 20)
        url = f"{server.url}/api/v1/images/{job['image_id']}/direct"
        assert server.http.get(url).status_code == 503
        assert until(lambda: of(server, event="request", status=503))
        assert server.http.get(f"{server.url}/api/v1/health/live").status_code == 200


SPEAKING = """
import logging, warnings
from imgsvc.settings.server import Log
from imgsvc.telemetry import logs
logs.configure(Log(json_lines="{json_lines}"))
warnings.warn("old ways")
logging.getLogger("hypercorn.error").error("the %s broke", "server")
try:
    secret = "a local variable"
    raise ValueError("of the test")
except ValueError:
    logging.getLogger("anything").exception("it failed")
import structlog
structlog.get_logger().info("ours", job_id="j")
structlog.get_logger().debug("too small")
"""


def spoken(json_lines: str) -> str:
    """What comes out on standard error, which is no terminal."""
    command = [sys.executable, "-W", "default", "-c", SPEAKING.format(json_lines=json_lines)]
    environ = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=seconds(60))
    assert (ran.returncode, ran.stdout) == (0, "")
    return ran.stderr


@pytest.mark.parametrize("json_lines", ["true", "auto"])
def test_everybody_speaks_in_json_lines(json_lines: str) -> None:
    warning, server, error, ours = (json.loads(line) for line in spoken(json_lines).splitlines())
    assert "old ways" in warning["event"] and warning["level"] == "warning"
    assert (server["event"], server["level"]) == ("the server broke", "error")
    assert "ValueError: of the test" in error["exception"] and "a local variable" not in json.dumps(error)
    assert ours.items() >= {"event": "ours", "job_id": "j", "level": "info"}.items()


def test_lines_for_a_person(tmp_path: Path) -> None:
    text = spoken("false")
    for words in ("old ways", "the server broke", "Traceback", "ValueError: of the test", "job_id=j"):
        assert words in text
    assert "\x1b" not in text and "a local variable" not in text
    with InlineServer(tmp_path, LOG_JSON="false") as server:
        assert server.http.get(f"{server.url}/nothing").status_code == 404
        pattern = re.compile(r"request .*method=GET .*path=/nothing status=404 trace_id=\S+")
        assert until(lambda: pattern.search(server.log.read_text()))


async def test_path_can_not_steer_a_terminal(start: Starter) -> None:
    async with start() as s:
        with structlog.testing.capture_logs() as lines:
            await s.http.get("/%1b%5b2J%c2%9b%e2%80%ae")
        assert [line["path"] for line in lines if line["event"] == "request"] == ["/%1B%5B2J%C2%9B%E2%80%AE"]
