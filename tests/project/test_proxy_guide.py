"""The guide to proxies: its settings, and its lines in nginx itself."""

import re
from pathlib import Path

import httpx
import pytest

from fixtures import make
from imgsvc import Settings
from tests.support.dashboard_page import TOKEN
from tests.support.nginx import NEEDS_NGINX, nginx, nginx_syntax
from tests.support.papers import runs
from tests.support.server_process import InlineServer, bearer

PUBLIC = "https://img.example.org"


def test_settings_behind_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(runs("docs/guides/proxy.md", "proxy")[0])
    settings = Settings.load(environ={})
    assert settings.service.public_url == PUBLIC
    assert [str(network) for network in settings.server.trusted_proxies] == ["127.0.0.1/32"]


@pytest.mark.parametrize("kind", ["proxy", "accel"])
def test_nginx_syntax_is_checked_without_nginx(kind: str) -> None:
    (text,) = runs("docs/guides/proxy.md", kind)[1:]
    assert nginx_syntax(text) and "127.0.0.1:8000;" in text
    for spoilt in (text.replace("0;", "0", 1), text.rstrip()[:-1], text + "}"):
        assert not nginx_syntax(spoilt)


@pytest.mark.process
@NEEDS_NGINX
def test_nginx_passes_uploads_on(tmp_path: Path) -> None:
    """nginx itself, with the guide's lines, in front of a service with the guide's settings."""
    settings, text = runs("docs/guides/proxy.md", "proxy")
    environ = dict(re.findall(r"^(\w+)=(\S+)", settings, re.MULTILINE))
    with InlineServer(tmp_path, OPERATOR_TOKEN=TOKEN, **environ) as server, nginx(tmp_path, text, server.url) as port:
        verify = httpx.Client(verify=False, headers={"Host": PUBLIC.partition("//")[2]})
        with verify as http:
            url, sent = f"https://127.0.0.1:{port}", {"file": ("photo", make.jpeg(2000, 1500))}
            answer = http.post(f"{url}/api/v1/images/upload", data={"bucket": "b"}, files=sent, headers=bearer())
            assert answer.status_code == 202, answer.text
            image = server.job_ended(answer.json()["job_id"])["image_id"]
            assert http.get(f"{url}/api/v1/images/{image}").json()["url"].startswith(f"{PUBLIC}/storage/")
            operator = {"Authorization": f"Bearer {TOKEN}"}
            assert http.get(f"{url}/metrics", headers=operator).status_code == 403
            assert server.http.get(f"{server.url}/metrics", headers=operator).status_code == 200
