"""Webhooks of a real server that is killed between each two of its steps, and the commands."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
from standardwebhooks import Webhook as Verifier

from fixtures import make
from tests.support.papers import marked, runs, succeeds
from tests.support.receiver import NEXT_SECRET, SECRET, Received, Receiver
from tests.support.server_process import InlineServer, ServerProcess, until

pytestmark = pytest.mark.process
GUIDE = "docs/guides/webhooks.md"
NOWHERE = "http://127.0.0.1:9/hook"


def server(folder: Path, **endpoint: Any) -> ServerProcess:
    return InlineServer(folder, IMGSVC_WEBHOOKS=json.dumps([endpoint]))


def imgsvc(served: ServerProcess, *arguments: str) -> str:
    ran = served.run(*arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def rows(folder: Path) -> list[Any]:
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
        job = before.job_ended(before.upload(make.tiny()).json()["job_id"])
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
            assert_commands_show_and_repeat(after, receiver, one.id)


def assert_commands_show_and_repeat(served: ServerProcess, receiver: Receiver, delivered: str) -> None:
    """Two messages have been received: the same one twice."""
    assert "delivered, status 204" in imgsvc(served, "webhooks", "test", "app")
    (listed,) = json.loads(imgsvc(served, "webhooks", "list", "--json"))
    assert (listed["name"], listed["waiting"]) == ("app", 0)
    assert "204" in imgsvc(served, "webhooks", "list", "app")
    assert imgsvc(served, "webhooks", "replay", "app", "--delivered") == "1 deliveries wait again\n"
    assert receiver.wait(4)[-1].id == delivered


@pytest.mark.parametrize(("kind", "command"), [("receiver", sys.executable), ("node", shutil.which("node"))])
def test_receiver_of_the_guide(kind: str, command: str | None, tmp_path: Path) -> None:
    """It takes what the service sends, with each secret of a rotation, and refuses what it did not sign."""
    if command is None:
        pytest.skip("Node.js is not installed")
    (tmp_path / "receiver.mjs").write_text(*runs(GUIDE, kind))
    with Receiver() as free:
        port = free.port
    with run_by(
        command, tmp_path / "receiver.mjs", PATH=os.environ["PATH"], WEBHOOK_SECRET=SECRET, PORT=str(port)
    ) as said:
        endpoint = {"name": "app", "url": f"http://127.0.0.1:{port}/", "secret": [NEXT_SECRET, SECRET]}
        with server(tmp_path, **endpoint, allow_private=True) as served:
            job = served.job_ended(served.upload(make.tiny()).json()["job_id"])
            expected = [["image.ready", job["image_id"]], ["image.completed", job["image_id"]]]
            assert [said.readline().split() for _ in range(2)] == expected
        url, body, moment = (
            f"http://127.0.0.1:{port}/",
            json.dumps({"type": "t", "data": {"image_id": "i"}}),
            time.time(),
        )
        assert [httpx.post(url, content=body, headers=one).status_code for one in forged(body, moment)] == [204] + [
            400
        ] * 7
        assert said.readline().split() == ["t", "i"]
        (shown,) = [one.text for one in marked(GUIDE, kind="curl") if one.mark == "gives"]
        typed = "".join(runs(GUIDE, "curl")).replace("http://127.0.0.1:9000/", url)
        assert succeeds(typed, tmp_path, os.environ).strip() == shown.strip()


def forged(body: str, moment: float) -> Iterator[dict[str, str]]:
    """The headers of a message that is signed, and of seven that must be refused."""
    sent = datetime.fromtimestamp(int(moment), UTC)
    signed = Verifier(SECRET).sign("msg_1", sent, body)
    good = {"webhook-id": "msg_1", "webhook-timestamp": str(int(moment)), "webhook-signature": signed}
    yield good
    yield good | {"webhook-signature": Verifier(NEXT_SECRET).sign("msg_1", sent, body)}
    yield good | {"webhook-signature": Verifier(SECRET).sign("msg_1", sent, body + " ")}
    yield good | {"webhook-signature": signed.replace("v1,", "v1a,")}
    yield good | {"webhook-id": "msg_2"}
    yield good | {"webhook-timestamp": str(int(moment) - 1)}
    old = sent - timedelta(minutes=6)
    yield good | {
        "webhook-timestamp": str(int(old.timestamp())),
        "webhook-signature": Verifier(SECRET).sign("msg_1", old, body),
    }
    yield {"webhook-id": "msg_1"}


@contextmanager
def run_by(command: str, file: Path, **environ: str) -> Iterator[IO[str]]:
    """A program that listens at $PORT: what it prints."""
    ran = subprocess.Popen([command, file], env=environ, stdout=subprocess.PIPE, text=True)
    assert ran.stdout
    try:
        until(lambda: is_listening(int(environ["PORT"])))
        yield ran.stdout
    finally:
        ran.kill()
        ran.wait()
        ran.stdout.close()


def is_listening(port: int) -> bool:
    with closing(socket.socket()) as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
