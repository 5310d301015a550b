"""Keys, tickets, render tokens and session cookies are in no log at DEBUG, no database and no backup."""

import base64
import json
import urllib.parse
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures import make
from imgsvc.access.render_tokens import RenderTokens
from tests.support.dashboard_page import TOKEN
from tests.support.server_process import InlineServer, bearer, until

API, OPERATOR = "/api/v1/images", "/api/v1/operator"
TINY = make.tiny()
AS_OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
RENDER = "/api/v1/render/"


class Wire:
    """Sends each secret in every place that a client may put it, and remembers it."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=60)
        self.made: list[str] = []

    def key(self, *permissions: str) -> dict[str, Any]:
        body = {"name": "n", "sub": "alice", "permissions": list(permissions)}
        made: dict[str, Any] = self.http.post(f"{OPERATOR}/keys", json=body, headers=AS_OPERATOR).json()
        self.made.append(made["key"])
        return made

    def ticket(self, headers: dict[str, str]) -> dict[str, Any]:
        made: dict[str, Any] = self.http.post(f"{API}/tickets", json={"bucket": "b"}, headers=headers).json()
        self.made.append(made["ticket"])
        return made

    def misplaced(self, secret: str) -> None:
        """Where it does not belong: paths, queries, headers, names, bodies."""
        quoted, jpeg = urllib.parse.quote(secret), {"Content-Type": "image/jpeg"}
        for path in (f"{API}/{quoted}", f"{API}/jobs/{quoted}", f"/{quoted}", f"{RENDER}{quoted}/source"):
            self.http.get(path)
        self.http.get(f"{API}?after={quoted}", headers=bearer())
        self.http.get(f"{API}/tickets/{quoted}")
        self.http.delete(f"{OPERATOR}/keys/{quoted}", headers=AS_OPERATOR)
        self.http.post(f"{OPERATOR}/login", json={"token": secret})
        self.http.get(API, headers={"Authorization": f"Basic {base64.b64encode(f':{secret}'.encode()).decode()}"})
        self.http.get(API, headers={"Authorization": f"bearer  {secret} x"})
        self.http.post(f"{API}/upload?bucket={quoted}/", content=TINY, headers=bearer() | jpeg)

    def login(self) -> None:
        answer = self.http.post(f"{OPERATOR}/login", json={"token": TOKEN})
        self.made.append(answer.headers["Set-Cookie"].partition(";")[0].partition("=")[2])


def everything(wire: Wire) -> None:
    key, revoked = wire.key("image:upload", "image:read"), wire.key("image:read")
    by_key = {"Authorization": f"Bearer {key['key']}"}
    jpeg = {"Content-Type": "image/jpeg"}
    ticket, spent = wire.ticket(by_key), wire.ticket(bearer())
    for headers in (by_key, {"Authorization": f"Bearer {ticket['ticket']}"}):
        wire.http.post(f"{API}/upload?bucket=b", content=TINY, headers=headers | jpeg)
        wire.http.get(API, headers=headers)
    for _ in range(2):  # accepted, then refused: ticket_spent
        receipt = wire.http.post(spent["upload_url"], content=TINY, headers=jpeg)
        wire.http.get(
            f"{API}/jobs/{receipt.json().get('job_id')}", headers={"Authorization": f"Bearer {spent['ticket']}"}
        )
    wire.http.post(ticket["upload_url"], content=b"no picture", headers=jpeg)
    wire.http.delete(f"{OPERATOR}/keys/{revoked['key_id']}", headers=AS_OPERATOR)
    wire.http.get(API, headers={"Authorization": f"Bearer {revoked['key']}"})
    wire.login()
    for secret in (key["key"], ticket["ticket"]):
        wire.misplaced(secret)
    render = RenderTokens().issue("a3a1f6c2-54a1-4d5c-9a39-0d8a8a0b8f10", 1, 60, {"small": 1})
    wire.made.append(render)
    wire.http.get(f"{RENDER}{render}/source")
    wire.http.put(f"{RENDER}{render}/small", content=b"x")


def backed_up(wire: Wire, folder: Path) -> None:
    wire.http.post(f"{OPERATOR}/storage/backup", json={"destination": str(folder)}, headers=AS_OPERATOR)
    task = f"{OPERATOR}/storage/task"
    until(lambda: wire.http.get(task, headers=AS_OPERATOR).json()["state"] != "running")
    assert (folder / "manifest.json").exists()


def holding(folder: Path, secrets: list[str]) -> list[str]:
    """Files that hold one of the secrets, as it is or as JSON or a URL writes it."""
    wanted = {form.encode() for one in secrets for form in (one, urllib.parse.quote(one), json.dumps(one)[1:-1])}
    return [str(path) for path in folder.rglob("*") if path.is_file() and any(w in path.read_bytes() for w in wanted)]


@pytest.mark.process
@pytest.mark.parametrize("as_json", ["true", "false"])
def test_no_secret_is_written_anywhere(tmp_path: Path, as_json: str) -> None:
    data = tmp_path / "service"
    data.mkdir()
    dask = {"IMGSVC_WORKERS_ENGINE": "dask", "IMGSVC_WORKERS_SCHEDULER": "tcp://127.0.0.1:9"}
    settings = {"LOG_LEVEL": "DEBUG", "LOG_JSON": as_json, "OPERATOR_TOKEN": TOKEN, "IMGSVC_WORKERS_INSECURE": "true"}
    with InlineServer(data, **settings, **dask) as server:
        wire = Wire(server.url)
        everything(wire)
        backed_up(wire, tmp_path / "backup")
        wire.http.close()
    assert "/api/v1/images/tickets/" in server.log.read_text() and len(server.log.read_text()) > 5_000
    assert len(wire.made) == 6 and all(len(one) > 30 for one in wire.made)
    assert holding(tmp_path, wire.made) == []
