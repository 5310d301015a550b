"""The guide to proxies: its settings, and its lines in nginx and Caddy themselves."""

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from fixtures import make
from imgsvc import Settings
from tests.support.caddy import NEEDS_CADDY, caddy, caddy_syntax
from tests.support.dashboard_page import TOKEN
from tests.support.nginx import NEEDS_NGINX, nginx, nginx_syntax
from tests.support.papers import runs
from tests.support.server_process import WAIT_SECONDS, InlineServer, ServerProcess, bearer, until

PUBLIC = "https://img.example.org"
HOST = PUBLIC.partition("//")[2]
CLIENT = "127.0.0.5"  # an address that is no trusted proxy's
UPLOAD = "/api/v1/images/upload"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
BROKEN = (55, 56)  # curl: a failure in sending, or in receiving
ALL_VERSIONS = pytest.mark.parametrize("version", ["1.1", "2"])


def test_settings_behind_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(runs("docs/guides/proxy.md", "proxy")[0])
    settings = Settings.load(environ={})
    assert settings.service.public_url == PUBLIC
    assert [str(network) for network in settings.server.trusted_proxies] == ["127.0.0.1/32"]


def guide_settings() -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(\S+)", runs("docs/guides/proxy.md", "proxy")[0], re.MULTILINE))


@pytest.mark.parametrize("kind", ["proxy", "accel"])
def test_nginx_syntax_is_checked_without_nginx(kind: str) -> None:
    (text,) = runs("docs/guides/proxy.md", kind)[1:]
    assert nginx_syntax(text) and "127.0.0.1:8000;" in text
    for spoilt in (text.replace("0;", "0", 1), text.rstrip()[:-1], text + "}"):
        assert not nginx_syntax(spoilt)


@pytest.mark.process
@NEEDS_NGINX
@pytest.mark.parametrize("prefix", ["", "/img"])
def test_nginx_passes_uploads_on(tmp_path: Path, prefix: str) -> None:
    """nginx itself, with the guide's lines, in front of a service with the guide's settings."""
    text = runs("docs/guides/proxy.md", "proxy")[1]
    if prefix:  # as the comments say
        text = text.replace("location / {", "location /img/ {").replace(":8000;", ":8000/;").replace("= /", "= /img/")
    environ = {**guide_settings(), "PUBLIC_URL": PUBLIC + prefix}
    with ExitStack() as stack:
        server = stack.enter_context(InlineServer(tmp_path, OPERATOR_TOKEN=TOKEN, **environ))
        port = stack.enter_context(nginx(tmp_path, text, server.url))
        with httpx.Client(verify=False, headers={"Host": HOST}) as http:
            url, sent = f"https://127.0.0.1:{port}{prefix}", {"file": ("photo", make.jpeg(2000, 1500))}
            answer = http.post(f"{url}{UPLOAD}", data={"bucket": "b"}, files=sent, headers=bearer())
            assert answer.status_code == 202, answer.text
            image = server.job_ended(answer.json()["job_id"])["image_id"]
            shown = http.get(f"{url}/api/v1/images/{image}").json()["url"]
            assert shown.startswith(f"{PUBLIC}{prefix}/storage/")
            assert http.get(shown.replace(PUBLIC + prefix, url)).headers["Content-Type"] == "image/webp"
            assert http.get(f"{url}/metrics", headers=OPERATOR).status_code == 403
            assert server.http.get(f"{server.url}/metrics", headers=OPERATOR).status_code == 200


@dataclass
class Site:
    """The service, and Caddy with the guide's lines before it."""

    server: ServerProcess
    port: int

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def client(self, version: str) -> httpx.Client:
        return https(version, HOST)

    def curl(self, version: str, file: Path, token: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """An upload by a client that looks for a response while it sends. Prints the response, and its status."""
        address = f"{HOST}:{self.port}"
        form = ["-F", "bucket=b", "-F", f"file=@{file}", "-H", f"Authorization: {token['Authorization']}"]
        line = ["curl", "-sSk", f"--http{version}", "-m", str(WAIT_SECONDS), "--resolve", f"{address}:127.0.0.1"]
        line += [*form, "--interface", CLIENT, "-w", "\n%{http_version} %{http_code}", f"https://{address}{UPLOAD}"]
        return subprocess.run(line, capture_output=True, text=True)


def https(version: str, host: str) -> httpx.Client:
    """A client of another address than the proxy's, that asks for this host in TLS too."""
    transport = httpx.HTTPTransport(verify=False, local_address=CLIENT, http1=version == "1.1", http2=version == "2")

    def name_host(request: httpx.Request) -> None:
        request.extensions["sni_hostname"] = host

    hooks = {"request": [name_host]}
    return httpx.Client(transport=transport, headers={"Host": host}, timeout=WAIT_SECONDS, event_hooks=hooks)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="caddy-")))
        limits = {"MAX_UPLOAD_SIZE_MB": "40", "IMGSVC_UPLOADS_IDLE_TIMEOUT_SECONDS": "5"}
        server = stack.enter_context(ServerProcess(folder, OPERATOR_TOKEN=TOKEN, **guide_settings(), **limits))
        text = runs("docs/guides/proxy.md", "caddy")[0]
        yield Site(server, stack.enter_context(caddy(folder, text, server.url)))


def test_caddy_syntax_is_checked_without_caddy() -> None:
    for text in runs("docs/guides/proxy.md", "caddy"):
        assert not caddy_syntax(text) and "127.0.0.1:8000\n" in text
        assert caddy_syntax(text.rstrip()[:-1]) == "braces do not match"
        assert caddy_syntax(text.replace("{\n", "{ ", 1)) == "a brace inside a line"


@pytest.mark.process
@NEEDS_CADDY
@ALL_VERSIONS
def test_caddy_passes_uploads_on(site: Site, version: str) -> None:
    """Large ones too, in the client's own name, which the client can't forge."""
    with site.client(version) as http:
        forged = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"}
        sent = {"file": ("photo", make.jpeg(2000, 1500) + bytes(30_000_000))}
        answer = http.post(f"{site.url}{UPLOAD}", data={"bucket": "b"}, files=sent, headers={**bearer(), **forged})
        assert (answer.status_code, answer.http_version) == (202, f"HTTP/{version}"), answer.text
        assert answer.headers["Location"].startswith(f"{PUBLIC}/")
        image = site.server.job_ended(answer.json()["job_id"])["image_id"]
        shown = http.get(f"{site.url}/api/v1/images/{image}").json()["url"]
        assert shown.startswith(f"{PUBLIC}/storage/")
        assert http.get(shown.replace(PUBLIC, site.url)).headers["Content-Type"] == "image/webp"
        lines = [json.loads(line) for line in site.server.log.read_text().splitlines() if '"request"' in line]
        assert {line["client"] for line in lines if line["path"] == UPLOAD} == {CLIENT}
        assert http.get(f"{site.url}/metrics", headers=OPERATOR).status_code == 404
        assert site.server.http.get(f"{site.server.url}/metrics", headers=OPERATOR).status_code == 200


@pytest.mark.process
@NEEDS_CADDY
@ALL_VERSIONS
def test_caddy_buffers_neither_uploads_nor_events(site: Site, version: str) -> None:
    staging = site.server.folder / "data" / "staging"
    arrived: list[int] = []
    photo = make.jpeg(2000, 1500) + version.encode()  # a picture that was uploaded before needs no worker
    fields = 'form-data; name="bucket"\r\n\r\nb\r\n--x\r\nContent-Disposition: form-data'
    head = f'--x\r\nContent-Disposition: {fields}; name="file"; filename="photo"\r\n\r\n'.encode()

    def body() -> Iterator[bytes]:
        yield head + photo[:300_000]
        arrived.extend(until(lambda: [part.stat().st_size for part in staging.glob("*.part") if part.stat().st_size]))
        yield photo[300_000:] + b"\r\n--x--\r\n"

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with site.client(version) as http:
        worker = site.server.render_worker()
        os.kill(worker, signal.SIGSTOP)
        try:
            answer = http.post(f"{site.url}{UPLOAD}", content=body(), headers={**bearer(), **kind})
            assert answer.status_code == 202 and 0 < arrived[0] <= 300_000, answer.text
            with http.stream("GET", f"{site.url}/api/v1/images/jobs/{answer.json()['job_id']}/events") as stream:
                events = (line for line in stream.iter_lines() if line.startswith("event:"))
                assert next(events) in ("event: status", "event: ready")  # the thumbnail may be there already
                os.kill(worker, signal.SIGCONT)
                assert list(events)[-1] == "event: end"
        finally:
            os.kill(worker, signal.SIGCONT)


@pytest.mark.process
@NEEDS_CADDY
@ALL_VERSIONS
def test_caddy_passes_refusals_on(site: Site, version: str, tmp_path: Path) -> None:
    """A photo's whole. Of a body that the service does not read to its end, HTTP/2 keeps the status at least."""
    photo, huge = tmp_path / "photo", tmp_path / "huge"
    photo.write_bytes(make.jpeg(2000, 1500))
    with huge.open("wb") as file:
        file.truncate(200_000_000)
    body, _, last = site.curl(version, photo, {"Authorization": "Bearer wrong"}).stdout.rpartition("\n")
    assert (last, json.loads(body)["code"]) == (f"{version} 401", "token_invalid")
    for token, status in ((bearer(), 413), ({"Authorization": "Bearer wrong"}, 401)):
        done = site.curl(version, huge, token)
        if version == "2" or done.returncode == 0:
            assert done.stdout.endswith(f"\n{version} {status}"), done.stderr
        else:
            assert done.returncode in BROKEN, done.stderr


@pytest.mark.process
@NEEDS_CADDY
def test_caddy_below_a_prefix(tmp_path: Path) -> None:
    text = runs("docs/guides/proxy.md", "caddy")[1]
    environ = {**guide_settings(), "PUBLIC_URL": "https://example.org/img"}
    with InlineServer(tmp_path, OPERATOR_TOKEN=TOKEN, **environ) as server, caddy(tmp_path, text, server.url) as port:
        url, sent = f"https://127.0.0.1:{port}", {"file": ("photo", make.jpeg())}
        with https("2", "example.org") as http:
            answer = http.post(f"{url}/img{UPLOAD}", data={"bucket": "b"}, files=sent, headers=bearer())
            assert answer.status_code == 202, answer.text
            image = server.job_ended(answer.json()["job_id"])["image_id"]
            shown = http.get(f"{url}/img/api/v1/images/{image}").json()["url"]
            assert shown.startswith("https://example.org/img/storage/")
            assert http.get(shown.replace("https://example.org", url)).headers["Content-Type"] == "image/webp"
            assert http.get(f"{url}/img/metrics", headers=OPERATOR).status_code == 404
            assert not http.get(f"{url}/api/v1/health").content
