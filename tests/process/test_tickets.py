"""One ticket and fifty uploads at once, against the real server: exactly one is accepted."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from fixtures import make
from imgsvc.access.issued_secrets import digest_of
from tests.support.server_process import InlineServer, bearer

pytestmark = pytest.mark.process
UPLOADS = 50


def test_one_ticket_and_fifty_uploads(tmp_path: Path) -> None:
    with InlineServer(tmp_path) as server:
        asked = {"bucket": "photos"}
        issued = httpx.post(f"{server.url}/api/v1/images/tickets", json=asked, headers=bearer())
        url = f"{server.url}{issued.json()['upload_url']}"
        photo = make.tiny()

        def upload(_: int) -> int:
            return httpx.post(url, content=photo, headers={"Content-Type": "image/jpeg"}, timeout=60).status_code

        with ThreadPoolExecutor(UPLOADS) as pool:
            statuses = Counter(pool.map(upload, range(UPLOADS)))
        assert statuses == {202: 1, 401: UPLOADS - 1}
        rows = httpx.get(f"{server.url}/api/v1/images", headers=bearer()).json()["images"]
        assert len(rows) == 1


def test_no_secret_is_kept_or_logged(tmp_path: Path) -> None:
    """Wherever a client puts it: the database and a backup of it have digests, and the log has neither."""
    with InlineServer(tmp_path, LOG_LEVEL="DEBUG") as server:
        key = server.run("keys", "create", "--name", "n", "--sub", "s").stdout.strip()
        issue = f"{server.url}/api/v1/images/tickets"
        asked = httpx.post(issue, json={"bucket": "b"}, headers={"Authorization": f"Bearer {key}"})
        ticket = asked.json()["ticket"]
        for secret in (key, ticket):
            headers = {"Authorization": f"Bearer {secret}", "X-Trace-ID": secret, "Content-Type": "image/jpeg"}
            for path in (secret, f"{secret}/all", f"{secret}/direct", f"jobs/{secret}", "batch?image_ids=" + secret):
                httpx.get(f"{server.url}/api/v1/images/{path}", headers=headers)
            httpx.get(f"{server.url}/nowhere/{secret}?token={secret}", headers=headers)
            httpx.get(f"{server.url}/errors/{secret}", headers=headers)
            httpx.get(f"{server.url}/api/v1/operator/keys", headers=headers)
            httpx.post(f"{server.url}/api/v1/images/tickets/{secret}", content=make.tiny(), headers=headers)
        assert server.run("storage", "backup", str(tmp_path / "backup")).returncode == 0
        server.stop()
        logged = server.log.read_text()
        assert "/api/v1/images/tickets/" in logged and "imgk_" in logged
        kept = b"".join(
            path.read_bytes()
            for folder in (tmp_path / "data", tmp_path / "backup")
            for path in folder.rglob("*")
            if path.is_file()
        )
        for secret in (key, ticket):
            assert secret not in logged and secret.encode() not in kept
        assert digest_of(key) in kept
