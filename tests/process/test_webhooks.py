"""Webhooks of a real server that is killed between each two of its steps, and the commands."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from docs.pages import ROOT, Page
from fixtures import make
from tests.support.receiver import NEXT_SECRET, SECRET, Received, Receiver
from tests.support.server_process import ServerProcess, until

pytestmark = pytest.mark.process
NOWHERE = "http://127.0.0.1:9/hook"


def server(folder: Path, **endpoint: Any) -> ServerProcess:
    return ServerProcess(folder, IMGSVC_WEBHOOKS=json.dumps([endpoint]))


def imgsvc(served: ServerProcess, *arguments: str) -> str:
    command = [sys.executable, "-m", "imgsvc", *arguments]
    ran = subprocess.run(
        command, cwd=served.folder, env=served.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def rows(folder: Path) -> list[Any]:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(folder / "data" / "imgsvc.db", timeout=10)) as db:
        return db.execute("SELECT message_id, state FROM webhook_outbox ORDER BY id").fetchall()


def test_killed_between_each_two_steps(tmp_path: Path) -> None:
    blocked, first = threading.Event(), list[str]()

    def answer(one: Received) -> int:
        if not first:
            first.append(one.id)
            blocked.wait(60)
        return 204

    with Receiver(answer) as receiver:
        endpoint = receiver.settings(events=["image.completed"])
        before = server(tmp_path, **endpoint | {"url": NOWHERE})
        before.start()
        job = before.job_ended(before.upload(make.jpeg(64, 48)).json()["job_id"])
        until(lambda: rows(tmp_path))
        before.signal(signal.SIGKILL)  # after 1, before 2 has come to anything
        before.ended()
        before.http.close()
        assert [state for _, state in rows(tmp_path)] == ["waiting"]
        assert "app" in imgsvc(before, "webhooks", "list")
        assert imgsvc(before, "webhooks", "enable", "app") == "app was not switched off\n"

        during = server(tmp_path, **endpoint)
        during.start()
        receiver.wait(1)
        during.signal(signal.SIGKILL)  # after 2, before 3
        during.ended()
        during.http.close()
        blocked.set()
        assert [state for _, state in rows(tmp_path)] == ["waiting"]

        with server(tmp_path, **endpoint | {"secret": [NEXT_SECRET, SECRET]}) as after:  # rotated in between
            one, again = receiver.wait(2)
            until(lambda: rows(tmp_path)[0][1] == "delivered")
            assert one.id == again.id == rows(tmp_path)[0][0]
            assert int(again.headers["webhook-timestamp"]) >= int(one.headers["webhook-timestamp"])
            assert again.json["data"]["image_id"] == job["image_id"]
            for secret in (SECRET, NEXT_SECRET):
                Verifier(secret).verify(again.body, again.headers)
            assert "delivered, status 204" in imgsvc(after, "webhooks", "test", "app")
            (listed,) = json.loads(imgsvc(after, "webhooks", "list", "--json"))
            assert (listed["name"], listed["waiting"]) == ("app", 0)
            assert "204" in imgsvc(after, "webhooks", "list", "app")
            assert imgsvc(after, "webhooks", "replay", "app", "--delivered") == "1 deliveries wait again\n"
            assert receiver.wait(4)[-1].id == one.id


def test_receiver_of_the_guide(tmp_path: Path) -> None:
    path = Path("docs/guides/webhooks.md")
    (block,) = [one for one in Page(path, (ROOT / path).read_text()).blocks if one.mark == "run"]
    (tmp_path / "receiver.py").write_text(block.text)
    with Receiver() as free:
        port = free.port
    environ = {"PATH": os.environ["PATH"], "WEBHOOK_SECRET": SECRET, "PORT": str(port)}
    ran = subprocess.Popen([sys.executable, tmp_path / "receiver.py"], env=environ, stdout=subprocess.PIPE, text=True)
    endpoint = {"name": "app", "url": f"http://127.0.0.1:{port}/", "secret": SECRET, "allow_private": True}
    try:
        with server(tmp_path, **endpoint) as served:
            job = served.job_ended(served.upload(make.jpeg(64, 48)).json()["job_id"])
            assert ran.stdout
            said = [ran.stdout.readline().split() for _ in range(2)]
            assert said == [["image.ready", job["image_id"]], ["image.completed", job["image_id"]]]
    finally:
        ran.kill()
        ran.wait()
        if ran.stdout:
            ran.stdout.close()
