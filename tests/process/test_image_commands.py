"""`imgsvc images` and `imgsvc keys` against a real server, and keys on a data folder without a service."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image

from fixtures import make
from tests.support.processes import begin
from tests.support.server_process import ROOT, InlineServer, ServerProcess, bearer
from tests.support.spared_commands import SparedCommands
from tests.support.speed import seconds

pytestmark = pytest.mark.process
Images = Callable[..., subprocess.CompletedProcess[str]]
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with InlineServer(tmp_path_factory.mktemp("commands"), IMGSVC_STORAGE_SIGNED_URLS="true") as one:
        yield one


def uploaded(server: ServerProcess, data: bytes) -> str:
    return str(server.job_ended(server.upload(data).json()["job_id"])["image_id"])


def test_images(server: ServerProcess, tmp_path: Path) -> None:
    first, second = (uploaded(server, make.jpeg(64, side)) for side in (48, 50))
    listed = json.loads(server.run("images", "list", "--json").stdout)
    assert [one["image_id"] for one in listed][:2] == [second, first]
    assert json.loads(server.run("images", "list", "--user", "nobody", "--json").stdout) == []
    assert server.run("images", "list", "--status", "failed").stdout == "No images.\n"
    assert first in server.run("images", "list", "--limit", "5").stdout
    wrong = server.run("images", "list", "--created-after", "yesterday")
    assert wrong.returncode == 2 and "--created-after yesterday: must be a day and time" in wrong.stderr
    assert server.run("images", "list", "--status", "gone").returncode == 2

    shown = json.loads(server.run("images", "show", first, "--json").stdout)
    assert (shown["image_id"], shown["user_id"]) == (first, "alice")
    assert "alice" in server.run("images", "show", first).stdout
    target = tmp_path / "large.webp"
    assert server.run("images", "get", first, "--size", "large", "--output", str(target)).returncode == 0
    assert Image.open(BytesIO(target.read_bytes())).size == (64, 48)
    absent = server.run("images", "get", first, "--size", "huge", "--output", str(target))
    assert absent.returncode == 1 and "it has: original, large, medium, thumbnail" in absent.stderr

    change = ("--metadata", '{"a": 1}', "--expires-at", "2036-01-01T00:00:00Z")
    changed = server.run("images", "patch", first, *change, "--json")
    assert json.loads(changed.stdout)["expires_at"] == "2036-01-01T00:00:00.000000+00:00"
    assert json.loads(server.run("images", "patch", first, "--never-expires", "--json").stdout)["expires_at"] is None
    refused: tuple[tuple[str, ...], ...] = ((), ("--metadata", "{"), ("--never-expires", "--expires-at", "x"))
    refused += tuple(("--expires-at", one) for one in ("tomorrow", "2036-01-01", "2036-01-01T00:00:00", "", "1e9"))
    for options in refused:
        assert server.run("images", "patch", first, *options).returncode == 2
    words = (
        "imgsvc: --expires-at soon: must be a day and time with an offset from UTC, such as 2027-03-01T09:30:00+01:00\n"
    )
    assert server.run("images", "patch", first, "--expires-at", "soon").stderr == words
    past = server.run("images", "patch", first, "--expires-at", "2001-01-01 00:00:00+01:00")
    assert past.returncode == 1 and "must be in the future, and at most ten years from now" in past.stderr

    gone = server.run("images", "delete", first, UNKNOWN)
    assert (gone.returncode, gone.stdout) == (1, f"{first}: deleted, 4 files removed\n")
    assert gone.stderr == f"imgsvc: {UNKNOWN}: Image not found\n"


@pytest.fixture
def spared(tmp_path: Path) -> Iterator[SparedCommands]:
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "IMGSVC_TOKEN": token_of("alice"),
        "HOME": str(tmp_path),
    }
    with SparedCommands("starlette structlog hypercorn PIL aiobotocore joserfc redis", tmp_path, environ) as commands:
        yield commands


@pytest.fixture
def images(server: ServerProcess, spared: SparedCommands) -> Images:
    """`imgsvc images` with --server, a caller's token, and none of the service's packages."""

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return spared.run("images", *arguments, "--server", server.url, **more)

    return run


def test_own_images_at_any_service(server: ServerProcess, images: Images, tmp_path: Path) -> None:
    mine = uploaded(server, make.jpeg(64, 60))
    listed = json.loads(images("list", "--limit", "1", "--json").stdout)
    assert [one["image_id"] for one in listed] == [mine]
    watched = images("watch", listed[0]["job_id"], "--json").stdout.splitlines()
    ready = [one["url"] for one in map(json.loads, watched) if one["event"] == "ready"]
    assert len(ready) == 4 and all(url.startswith(f"{server.url}/storage/") and "signature=" in url for url in ready)
    anonymous = images("watch", listed[0]["job_id"], IMGSVC_TOKEN="").stdout
    assert "end: " in anonymous and "None" not in anonymous
    assert mine in images("list", "--bucket", "b").stdout
    assert images("list", IMGSVC_TOKEN=token_of("bob")).stdout == "No images.\n"
    assert json.loads(images("show", mine, "--json").stdout)["image_id"] == mine
    target = tmp_path / "large.webp"
    assert images("get", mine, "--size", "large", "--output", str(target)).returncode == 0
    assert Image.open(BytesIO(target.read_bytes())).size == (64, 60)
    absent = images("get", mine, "--size", "huge", "--output", str(target))
    assert absent.returncode == 1 and "This image has the sizes: original, large, medium, thumbnail" in absent.stderr
    assert images("list", IMGSVC_TOKEN="").returncode == 2 and images("list", "--user", "bob").returncode == 2
    assert server.run("images", "list", "--whole-org").returncode == 2


def test_changes_of_own_images_at_any_service(server: ServerProcess, images: Images) -> None:
    mine = uploaded(server, make.jpeg(64, 62))
    assert images("patch", mine, "--focal", "0.5,0.25").returncode == 0
    assert images("patch", mine, "--focal", "auto").returncode == 0
    assert "focal.x: Input should be less than or equal to 1, not 2" in images("patch", mine, "--focal", "2,0").stderr
    wrong = images("patch", mine, "--focal", "left")
    assert wrong.returncode == 2 and "must be two numbers from 0 to 1" in wrong.stderr
    changed = images("patch", mine, "--metadata", '{"a": 1}', "--json")
    assert json.loads(changed.stdout)["client_metadata"]["a"] == 1
    refused = images("delete", mine, IMGSVC_TOKEN=token_of("bob"))
    assert refused.stderr == f"imgsvc: {mine}: Permission denied: image:delete\n"
    gone = images("delete", mine, UNKNOWN)
    assert (gone.returncode, gone.stdout) == (1, f"{mine}: deleted, 4 files removed\n")
    assert gone.stderr == f"imgsvc: {UNKNOWN}: Image not found\n"


def test_own_usage_and_tickets_at_any_service(server: ServerProcess, images: Images) -> None:
    uploaded(server, make.jpeg(64, 64))
    kept = len(json.loads(images("list", "--json").stdout))
    used = images("usage").stdout
    assert f"you: {kept} images, " in used and "uploads left: " in used
    assert json.loads(images("usage", "--json").stdout)["user"]["images"] == kept
    assert images("usage", IMGSVC_TOKEN="").returncode == 2
    url = images("ticket", "--bucket", "album", "--max-bytes", "5000", "--accept", "image/jpeg").stdout.strip()
    photo = {"file": ("a.jpg", make.jpeg(64, 66), "image/jpeg")}
    assert url.startswith(server.url) and httpx.post(url, files=photo).status_code == 202
    assert httpx.post(url, files=photo).json()["code"] == "ticket_spent"
    assert "bucket: must be" in images("ticket", "--bucket", "../x").stderr
    assert images("ticket", "--uploads", "0").returncode == 2
    fetched = images("fetch", "https://127.0.0.1/a.jpg")
    assert fetched.returncode == 1 and fetched.stderr.startswith("imgsvc: "), fetched.stderr


def test_watching_outlives_the_service(tmp_path: Path) -> None:
    """The last of several jobs, while the service is killed and started again."""
    with InlineServer(tmp_path) as server:
        jobs = [server.upload(make.jpeg(1600, 1200, seed=seed)).json()["job_id"] for seed in range(4)]
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        watching = begin(["images", "watch", jobs[3], "--server", server.url], folder=tmp_path, environ=environ)
        try:
            assert watching.stdout
            assert watching.stdout.readline().startswith(f"{jobs[3]} ")
            assert watching.poll() is None
            server.kill_and_start()
            said = watching.communicate(timeout=seconds(60))[0].splitlines()
        finally:
            watching.kill()
        assert watching.wait() == 0
        assert said[-1] == f"{jobs[3]} end: completed"
        assert sum(f"{jobs[3]} ready: original http" in one for one in said) >= 1, said
        torn = server.upload(make.jpeg(640, 480)[:20_000]).json()["job_id"]
        failed = server.run("images", "watch", torn, UNKNOWN, "--server", server.url, "--json")
        events = [json.loads(one) for one in failed.stdout.splitlines()]
        ends = {one["job_id"]: (one["status"], one.get("error_code")) for one in events if one["event"] == "end"}
        assert ends == {torn: ("failed", "image_unreadable"), UNKNOWN: ("not_found", None)} and failed.returncode == 1
        wrong = server.run("images", "watch", "nonsense", "--server", server.url)
        assert wrong.returncode == 1 and "no job ID" in wrong.stderr


def test_deleting_asks_at_a_terminal(server: ServerProcess) -> None:
    """As a person answers: no, then yes; and with --yes there is no question."""
    first, second = (uploaded(server, make.jpeg(64, side)) for side in (70, 72))

    def typed(answer: bytes, *arguments: str) -> tuple[int, str]:
        ours, theirs = os.openpty()
        os.write(ours, answer)
        command = [sys.executable, "-m", "imgsvc", "images", "delete", *arguments]
        ran = subprocess.run(
            command,
            cwd=server.folder,
            env=server.environ,
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=seconds(60),
        )
        os.close(ours)
        os.close(theirs)
        return ran.returncode, ran.stdout + ran.stderr

    status, said = typed(b"n\n", first, second)
    assert status == 2 and "Delete 2 images with all files? [y/N]" in said and "nothing was deleted" in said
    assert len(json.loads(server.run("images", "list", "--json").stdout)) >= 2
    status, said = typed(b"y\n", first)
    assert status == 0 and f"{first}: deleted, 4 files removed" in said and "Delete the image" in said
    status, said = typed(b"", "--yes", second)
    assert status == 0 and "?" not in said


def token_of(user: str) -> str:
    return bearer(user)["Authorization"].removeprefix("Bearer ")


def test_keys(server: ServerProcess) -> None:
    limits = '{"buckets": ["photos"]}'
    made = server.run("keys", "create", "--name", "shop", "--sub", "shop", "--narrower", limits)
    secret = made.stdout.strip()
    assert secret.startswith("imgk_") and made.returncode == 0
    url = f"{server.url}/api/v1/images/upload"
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "image/jpeg"}
    photo = make.jpeg(64, 52)
    assert httpx.post(url, params={"bucket": "photos"}, content=photo, headers=headers).status_code == 202
    assert httpx.post(url, params={"bucket": "other"}, content=photo, headers=headers).status_code == 403
    (listed,) = json.loads(server.run("keys", "list", "--json").stdout)
    assert (listed["name"], listed["sub"], listed["permissions"]) == ("shop", "shop", ["image:upload"])
    assert listed["narrower"] == {"buckets": ["photos"]} and secret not in server.run("keys", "list").stdout
    revoked = server.run("keys", "revoke", listed["key_id"], UNKNOWN)
    assert (revoked.returncode, revoked.stdout) == (1, f"{listed['key_id']}: revoked\n")
    assert revoked.stderr == f"imgsvc: {UNKNOWN}: API key not found\n"
    assert httpx.post(url, params={"bucket": "photos"}, content=photo, headers=headers).status_code == 401
    for wrong in (("--narrower", "{"), ("--narrower", '{"bytes": 1}'), ("--org", "")):
        assert server.run("keys", "create", "--name", "n", "--sub", "s", *wrong).returncode == 2


def test_without_a_service(tmp_path: Path) -> None:
    with InlineServer(tmp_path) as server:
        assert server.upload(make.tiny()).status_code == 202
        server.stop()
        assert "no service runs" in server.run("images", "list").stderr
        secret = server.run("keys", "create", "--name", "n", "--sub", "s").stdout.strip()
        (listed,) = json.loads(server.run("keys", "list", "--json").stdout)
        assert listed["last_used_at"] is None and secret.startswith("imgk_")
        assert server.run("keys", "revoke", listed["key_id"]).returncode == 0
        assert server.run("keys", "revoke", listed["key_id"]).stderr.endswith("API key not found\n")
