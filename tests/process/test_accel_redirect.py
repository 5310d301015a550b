"""`[server] accel_redirect`: nginx sends the bytes, with the server block and the settings of the guide to proxies.

As root its workers are another user, whose group is the one that may read the variants.
"""

import os
import re
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from fixtures import make
from tests.support.dashboard_page import TOKEN
from tests.support.nginx import NEEDS_NGINX, nginx
from tests.support.papers import runs
from tests.support.server_process import InlineServer, ServerProcess, bearer, until

pytestmark = [pytest.mark.process, NEEDS_NGINX]
USER = "www-data" if os.geteuid() == 0 else ""
IMAGES = "/api/v1/images"
# Prints each path that it can open or list.
OPENED = """while read -r path; do (ls "$path/" || head -c 1 "$path") >/dev/null 2>&1 && echo "$path"; done; true"""
SENT_BY = "X-Sent-By"  # which the tests let nginx say
OF_EACH_CONNECTION = (
    SENT_BY.lower(),
    "date",
    "server",
    "connection",
    "keep-alive",
    "x-trace-id",
    "x-correlation-id",
    "alt-svc",
)


@dataclass
class Site:
    """The service, nginx before it, and a completed image."""

    server: ServerProcess
    url: str
    http: httpx.Client
    image: str
    pictures: Path

    def get(self, path: str, *, method: str = "GET", **headers: str) -> httpx.Response:
        """Through nginx."""
        return self.http.request(method, f"{self.url}{path}", headers={"Host": "img.example.org", **headers})

    def plain(self, path: str, *, method: str = "GET", **headers: str) -> httpx.Response:
        """From the service itself, which does not trust this address."""
        return self.server.http.request(
            method, f"{self.server.url}{path}", headers={"Host": "img.example.org", **headers}
        )

    def direct(self, size: str = "medium") -> str:
        return f"{IMAGES}/{self.image}/direct?size={size}"

    def stored(self, size: str = "medium") -> str:
        urls = self.plain(f"{IMAGES}/{self.image}/all", **bearer()).json()["urls"]
        parts = urlsplit(urls[size])
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    def file(self, size: str = "medium") -> Path:
        return self.pictures / "b" / "processed" / size / f"{self.image}_{size}.webp"


def guide() -> tuple[dict[str, str], str]:
    settings, text = runs("docs/guides/proxy.md", "accel")
    return dict(re.findall(r"^(\w+)=(\S+)", settings, re.MULTILINE)), text


@contextmanager
def site(**more: str) -> Iterator[Site]:
    """nginx comes from 127.0.0.2, so that the tests' own requests are none of a trusted proxy."""
    environ, text = guide()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="accel-")))
        folder.chmod(0o711)
        pictures = folder / "pictures"
        environ |= {"IMGSVC_SERVER_TRUSTED_PROXIES": "127.0.0.2/32", "STORAGE_PATH": str(pictures)}
        environ |= {"IMGSVC_SERVER_CACHE_MB": "0", **more}  # the service looks at the files, too
        environ["IMGSVC_SERVER_CACHE_MB"] = "0"  # what the service sends itself is to come from the files here, too
        if not USER:
            del environ["IMGSVC_STORAGE_GROUP"]
        server = stack.enter_context(InlineServer(folder, OPERATOR_TOKEN=TOKEN, **environ))
        text = text.replace("/srv/imgsvc", str(pictures)).replace("sendfile on;", "sendfile on; proxy_bind 127.0.0.2;")
        text = text.replace("etag off;", f"etag off; add_header {SENT_BY} nginx;")
        port = stack.enter_context(nginx(folder, text, server.url, USER))
        http = stack.enter_context(httpx.Client(verify=False))
        one = Site(server, f"https://127.0.0.1:{port}", http, "", pictures)
        sent = {"file": ("photo", make.jpeg(800, 600))}
        answer = http.post(f"{one.url}{IMAGES}/upload", data={"bucket": "b"}, files=sent, headers=bearer())
        assert answer.status_code == 202, answer.text
        one.image = server.job_ended(answer.json()["job_id"])["image_id"]
        yield one


@pytest.fixture(scope="module")
def public() -> Iterator[Site]:
    with site(IMGSVC_SERVER_CORS_ORIGINS="https://app.example.org") as one:
        yield one


def seen(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    """What a client sees, but what is new in each response; nginx sends a 206 without Accept-Ranges."""
    left_out = (*OF_EACH_CONNECTION, *(["accept-ranges"] if answer.status_code == 206 else []))
    headers = sorted((name, value) for name, value in answer.headers.multi_items() if name not in left_out)
    return answer.status_code, headers, answer.content


@pytest.mark.parametrize("origin", [{}, {"Origin": "https://app.example.org"}, {"Origin": "https://other.example.org"}])
def test_nginx_sends_what_the_service_allows(public: Site, origin: dict[str, str]) -> None:
    """The same bytes and headers as without nginx, and no read by the service."""
    for path, lasting in ((public.direct(), "max-age=3600"), (public.stored("large"), "immutable")):
        expected = seen(public.plain(path, **origin))
        answer = public.get(path, **origin, **{"X-Trace-ID": "abc"})
        assert seen(answer) == expected and answer.headers["Cache-Control"].endswith(lasting)
        assert answer.headers["X-Trace-ID"] == answer.headers["X-Correlation-ID"] == "abc"
        assert SENT_BY in answer.headers


CONDITIONS: list[dict[str, str]] = [
    {"Range": "bytes=0-9"},
    {"Range": "bytes=-7"},
    {"Range": "bytes=20-"},
    {"Range": "bytes=0-999999"},
    {"Range": "bytes=999999-"},
    {"Range": "bytes=-0"},
    {"Range": "bytes=9-2"},
    {"Range": "bytes=0-1,5-9"},
    {"Range": "lines=1-2"},
    {"If-None-Match": "ETAG"},
    {"If-None-Match": "*"},
    {"If-None-Match": '"other"'},
    {"If-Match": "ETAG"},
    {"If-Match": '"other"'},
    {"If-Modified-Since": "DATE"},
    {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"If-Unmodified-Since": "DATE"},
    {"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"Range": "bytes=0-9", "If-Range": "ETAG"},
    {"Range": "bytes=0-9", "If-Range": '"other"'},
    {"Range": "bytes=0-9", "If-Range": "DATE"},
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ranges_and_conditions_mean_the_same(public: Site, method: str) -> None:
    whole = public.plain(public.direct())
    own = {"ETAG": whole.headers["ETag"], "DATE": whole.headers["Last-Modified"]}
    for path in (public.direct(), public.stored()):
        for sent in CONDITIONS:
            headers = {name: own.get(value, value) for name, value in sent.items()} | {"X-Trace-ID": "t"}
            expected = seen(public.plain(path, method=method, **headers))
            assert seen(public.get(path, method=method, **headers)) == expected, (path, sent)


def test_single_range_is_sent_by_nginx(public: Site) -> None:
    answer = public.get(public.direct(), Range="bytes=3-9")
    assert (answer.status_code, answer.content) == (206, public.file().read_bytes()[3:10])
    assert SENT_BY in answer.headers


def test_request_that_no_proxy_sent_gets_the_bytes(public: Site) -> None:
    """Whatever it says of itself, and no file is named to it."""
    for pretended in ({}, {"X-Forwarded-For": "127.0.0.2"}, {"X-Accel-Redirect": "/protected/b"}):
        answer = public.plain(public.direct(), **pretended)
        assert (answer.status_code, answer.content) == (200, public.file().read_bytes())
        assert not [name for name in answer.headers if name.startswith(("x-accel", "x-cache"))]


def test_what_a_client_says_about_the_redirect_changes_nothing(public: Site) -> None:
    other = f"/protected/b/processed/large/{public.image}_large.webp"
    said = {"X-Accel-Redirect": other, "X-Accel-Failed": "1", "X-Accel-Expires": "0", "X-Cache-Control": "no-store"}
    expected, answer = seen(public.get(public.direct())), public.get(public.direct(), **said)
    assert seen(answer) == expected and SENT_BY in answer.headers
    missing = public.get(f"{IMAGES}/00000000-0000-4000-8000-000000000000/direct", **said)
    assert missing.status_code == 404


def test_internal_location_is_closed_to_the_outside(public: Site) -> None:
    name = public.file().relative_to(public.pictures)
    for folder in ("sources", "incoming", "b/sources"):
        (public.pictures / folder).mkdir(parents=True, exist_ok=True)
        (public.pictures / folder / f"{public.image}.jpg").write_bytes(b"source")
    try:
        for path in (
            f"/protected/{name}",
            f"/protected//{name}",
            f"/protected/b/../{name}",
            f"/%70rotected/{name}",
            f"/protected/b/sources/{public.image}.jpg",
            f"/protected/incoming/{public.image}.jpg",
            f"/storage/b/sources/{public.image}.jpg",
            f"/storage/incoming/{public.image}.jpg",
            f"/storage/../protected/{name}",
        ):
            assert public.get(path).status_code == 404, path
    finally:
        for folder in ("sources", "incoming", "b/sources"):
            (public.pictures / folder / f"{public.image}.jpg").unlink()
            (public.pictures / folder).rmdir()


class Named(BaseHTTPRequestHandler):
    """A service that names to nginx whatever the client's path is."""

    def do_GET(self) -> None:
        self.send_response(404 if self.headers["X-Accel-Failed"] else 200)
        self.send_header("X-Accel-Redirect", f"/protected{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_nginx_itself_sends_variants_only(tmp_path: Path) -> None:
    """Even if the service named a source, an upload that waits or the database."""
    _, text = guide()
    pictures = tmp_path / "pictures"
    paths = [
        "/b/sources/x.jpg",
        "/b/sources/x.webp",
        "/incoming/x.webp",
        "/imgsvc.db",
        "/b/processed/m/.x.webp.partial",
    ]
    for path in [*paths, "/b/processed/m/x.webp", "/b/c/processed/m/x.webp"]:
        (pictures / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (pictures / path[1:]).write_bytes(b"bytes")
    stub = ThreadingHTTPServer(("127.0.0.1", 0), Named)
    threading.Thread(target=stub.serve_forever, daemon=True).start()
    try:
        service = f"http://127.0.0.1:{stub.server_address[1]}"
        with (
            nginx(tmp_path, text.replace("/srv/imgsvc", str(pictures)), service) as port,
            httpx.Client(verify=False) as http,
        ):
            url = f"https://127.0.0.1:{port}"
            assert {path: http.get(f"{url}{path}").status_code for path in paths} == dict.fromkeys(paths, 404)
            for path in ("/b/processed/m/x.webp", "/b/c/processed/m/x.webp"):
                assert http.get(f"{url}{path}").content == b"bytes"
    finally:
        stub.shutdown()
        stub.server_close()


def test_file_that_nginx_can_not_send_is_sent_by_the_service(public: Site) -> None:
    """Closed to its group, or gone: then with the service's own 404, which must not be cached."""
    if not USER:
        pytest.skip("nginx is this user here, to whom no file is closed")
    expected, file = seen(public.get(public.direct())), public.file()
    file.chmod(0o600)
    answer = public.get(public.direct())
    assert seen(answer) == expected and SENT_BY not in answer.headers
    assert "accel_redirect_failed" in public.server.log.read_text()
    file.rename(file.with_suffix(".aside"))
    gone = public.get(public.direct())
    file.with_suffix(".aside").rename(file)
    file.chmod(0o640)
    assert gone.status_code == 404 and gone.json()["code"] == "image_not_found"
    assert "immutable" not in ",".join(gone.headers.get_list("Cache-Control"))


def test_group_reads_variants_and_nothing_else(public: Site) -> None:
    if not USER:
        pytest.skip("only root can become another user")
    everything = [str(path) for path in public.server.folder.rglob("*")]
    tried = subprocess.run(
        ["/bin/sh", "-c", OPENED],
        input="\n".join(everything),
        capture_output=True,
        text=True,
        check=True,
        user=USER,
        group=USER,
        extra_groups=[],
    )
    opened = {Path(line) for line in tried.stdout.splitlines()}
    ours = [
        path
        for path in opened
        if path.is_relative_to(public.pictures) or path.is_relative_to(public.server.folder / "data")
    ]
    assert sorted(ours) == sorted(public.file(size) for size in ("thumbnail", "medium", "large", "original"))
    assert stat.S_IMODE(public.file().stat().st_mode) == 0o640
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in list(public.file().parents)[:4]} == {0o710}


def test_private_reading_is_decided_by_the_service() -> None:
    with site(IMGSVC_STORAGE_SIGNED_URLS="true") as private:
        urls = private.plain(f"{IMAGES}/{private.image}/all", **bearer()).json()["urls"]
        signed = private.stored()
        assert urls["medium"].endswith(signed) and "signature=" in signed
        answer = private.get(signed)
        assert (answer.status_code, answer.content) == (200, private.file().read_bytes())
        assert re.fullmatch(r"private, max-age=\d+", answer.headers["Cache-Control"])
        assert SENT_BY in answer.headers
        assert private.get(signed, Range="bytes=0-4").status_code == 206
        for refused in (
            signed.partition("?")[0],
            signed.replace("medium", "large"),
            re.sub("expires=.", "expires=9", signed),
            private.direct(),
            f"{private.direct()}&{signed.partition('?')[2]}",
        ):
            assert private.get(refused).status_code == 403, refused
        deleted = private.get(f"{IMAGES}/{private.image}", method="DELETE", **bearer())
        assert deleted.status_code == 200 and private.get(signed).status_code == 404


def test_negotiated_format_says_so_whoever_sends_it() -> None:
    """`Vary: Accept` on the bytes that nginx sends, on parts, on 304 and 404, as without nginx."""
    pytest.importorskip("pillow_avif")
    more = {"IMGSVC_IMAGES_FORMATS": "webp,avif", "IMAGE_SIZES": "medium=300"}
    with site(**more) as one:
        until(lambda: "avif" in one.plain(f"{IMAGES}/{one.image}/all", **bearer()).json()["formats"])
        path = f"{one.direct()}&format=auto"
        for accept, form in (("image/avif,image/webp,*/*", "avif"), ("*/*", "webp")):
            whole = one.plain(path, Accept=accept)
            assert whole.headers["Content-Type"] == f"image/{form}"
            for conditions in ({}, {"Range": "bytes=0-9"}, {"If-None-Match": whole.headers["ETag"]}):
                for method in ("GET", "HEAD"):
                    sent = {"Accept": accept, "X-Trace-ID": "t", **conditions}
                    answer = one.get(path, method=method, **sent)
                    assert seen(answer) == seen(one.plain(path, method=method, **sent)), (accept, conditions, method)
                    assert answer.headers.get_list("Vary", split_commas=True).count("Accept") == 1
            assert SENT_BY in one.get(path, Accept=accept).headers
        missing = one.get(f"{one.direct('huge')}&format=auto")
        assert missing.status_code == 404 and "Accept" in missing.headers["Vary"].split(", ")
        assert "Vary" not in one.get(one.direct(), Accept="image/avif").headers
