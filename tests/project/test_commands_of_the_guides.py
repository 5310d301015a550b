"""Commands and calls of the guides, run as they are written, against a service with an image."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import make
from tests.support.dashboard_page import TOKEN
from tests.support.papers import TOUR_HOST, runs, shell, succeeds
from tests.support.receiver import Receiver
from tests.support.server_process import WAIT_SECONDS, InlineServer, ServerProcess, bearer

PUBLIC = "https://img.example.org"
INSTALLED = 'imgsvc() { ./run imgsvc "$@"; }\n'  # as the command is called after an installation
SIZES = {"thumbnail": 150, "medium": 600, "large": 1200, "hero": {"width": 160, "height": 90, "fit": "cover"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with Receiver() as receiver:
        endpoint = receiver.settings(name="app", events=["image.completed"])
        settings = {"IMGSVC_WEBHOOKS": json.dumps([endpoint]), "IMAGE_SIZES": json.dumps(SIZES)}
        with InlineServer(tmp_path_factory.mktemp("server"), OPERATOR_TOKEN=TOKEN, **settings) as one:
            yield one


@pytest.fixture
def job(server: ServerProcess) -> dict[str, str]:
    sent = server.upload(make.jpeg(640, 480)).json()["job_id"]
    found: dict[str, str] = server.job_ended(sent)
    assert found["status"] == "completed"
    return found


def environ(server: ServerProcess, **more: str) -> dict[str, str]:
    token = bearer()["Authorization"].removeprefix("Bearer ")
    return {**server.environ, "TOKEN": token, "IMGSVC_TOKEN": token, "OPERATOR_TOKEN": TOKEN, **more}


def commands(page: str, server: ServerProcess, image_id: str = "", kind: str = "commands") -> list[str]:
    texts = [text.replace(PUBLIC, server.url).replace(TOUR_HOST, server.url) for text in runs(page, kind)]
    return [text.replace("IMAGE_ID", image_id) if image_id else text for text in texts]


@pytest.mark.process
def test_python_client_of_the_guide(server: ServerProcess, clone: Path) -> None:
    (text,) = commands("docs/guides/client.md", server, kind="client")
    script = f"{text}\nimport os\nasyncio.run(main(os.environ['TOKEN']))\n"
    command, env = [sys.executable, "-c", script], environ(server)
    done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True, timeout=WAIT_SECONDS)
    assert re.search(r"/storage/holiday/processed/thumbnail/\S+\n$", done.stdout), done.stderr


@pytest.mark.process
def test_commands_of_the_client(server: ServerProcess, clone: Path, job: dict[str, str], tmp_path: Path) -> None:
    """The deletion comes last. The service fetches nothing: it has no `[fetch] allowed_hosts`."""
    upload, images = commands("docs/guides/client.md", server, job["image_id"])
    upload = upload.replace("upload photo.jpg", f"upload photo.jpg --server {server.url}")  # by default it is at 8000
    folder = tmp_path / "Pictures" / "2026"
    folder.mkdir(parents=True)
    (folder / "sea.jpg").write_bytes(make.jpeg(64, 48, seed=3))
    at_home = environ(server, HOME=str(tmp_path))
    assert succeeds(INSTALLED + upload, clone, at_home).count("_large.webp\n") == 2
    lines = images.replace("JOB_ID", job["job_id"]).splitlines()
    lines.sort(key=lambda line: " delete " in line)  # what is deleted can't be watched
    (fetch,) = (line for line in lines if " fetch " in line)
    lines.remove(fetch)
    said = succeeds(INSTALLED + "\n".join(lines), clone, at_home)
    assert job["image_id"] in said and "/api/v1/images/tickets/" in said
    assert (clone / "photo.webp").read_bytes().startswith(b"RIFF")
    refused = shell(INSTALLED + fetch, clone, at_home)
    assert refused.returncode == 1 and "fetch" in refused.stderr


@pytest.mark.process
def test_commands_for_the_images_of_all_users(server: ServerProcess, clone: Path, job: dict[str, str]) -> None:
    (patch,) = commands("docs/guides/expiry.md", server, job["image_id"])
    (images,) = commands("docs/guides/lists.md", server, job["image_id"])
    assert "2027-01-01" in succeeds(INSTALLED + patch, clone, environ(server))
    assert f"{job['image_id']}: deleted" in succeeds(INSTALLED + images, clone, environ(server))


@pytest.mark.process
def test_commands_for_keys_webhooks_and_sessions(server: ServerProcess, clone: Path, job: dict[str, str]) -> None:
    (keys,) = commands("docs/guides/keys.md", server)
    create, *rest = keys.splitlines()
    assert succeeds(INSTALLED + create, clone, environ(server)).startswith("imgk_")
    (key,) = json.loads(server.run("keys", "list", "--json").stdout)
    said = succeeds(INSTALLED + "\n".join(rest).replace("KEY_ID", key["key_id"]), clone, environ(server))
    assert "revoked" in said
    (webhooks,) = commands("docs/guides/webhooks.md", server)
    assert "delivered, status 204" in succeeds(INSTALLED + webhooks, clone, environ(server))
    (sessions,) = commands("docs/guides/single-sign-on.md", server)
    succeeds(INSTALLED + sessions, clone, environ(server))


@pytest.mark.process
def test_calls_of_the_guide_to_uploading(server: ServerProcess, clone: Path, job: dict[str, str]) -> None:
    """A focal point, and the format that the client takes."""
    named = environ(server, B=f"{server.url}/api/v1/images", IMAGE_ID=job["image_id"])
    focal, negotiated = commands("docs/guides/uploading.md", server, kind="calls")
    assert json.loads(succeeds(focal, clone, named))["rendering"] == ["hero"]
    succeeds(negotiated, clone, named)
    assert (clone / "medium").read_bytes().startswith(b"RIFF")


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_certificates_of_the_guide_to_machines(tmp_path: Path) -> None:
    (text,) = runs("docs/guides/machines.md", "openssl")
    succeeds(f"{text}\nopenssl verify -CAfile ca.pem worker-1.pem", tmp_path, {"PATH": os.environ["PATH"]})
