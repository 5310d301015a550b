"""The API's page, in a real browser: it stands alone, tries every call, and works behind a path prefix."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing

import httpx
import pytest

from fixtures import make
from imgsvc.access.tokens import Tokens
from tests.conftest import Starter
from tests.support.browser import browsing, in_browser
from tests.support.server_process import SECRET, InlineServer, ServerProcess
from tests.support.tcp_server import serving

STRICT = ("default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with InlineServer(tmp_path_factory.mktemp("data")) as one:
        yield one


async def test_page_is_all_there_is(start: Starter) -> None:
    async with start(service={"name": "<b>&'"}) as s:
        for path, above in (("/docs", ""), ("/docs/", "../")):
            page = await s.http.get(path)
            assert page.status_code == 200
            assert page.headers["Content-Type"] == "text/html; charset=utf-8"
            assert page.headers["Cache-Control"] == "no-cache"
            policy = page.headers["Content-Security-Policy"].split("; ")
            assert set(STRICT) <= set(policy)
            assert not re.search(r"unsafe|https?:", page.headers["Content-Security-Policy"])
            assert f"data-document='{above}openapi.json'" in page.text
            assert "<title>&lt;b&gt;&amp;&#x27;: API</title>" in page.text
            assert not re.search(r"<script>|<script [^>]*>[^<]|\son\w+=|https?://", page.text)
            named = re.findall(r"(?:src|href)='([^']+)'", page.text)
            assert len([address for address in named if "?v=" in address]) == 4
            for address in named:
                assert not address.startswith("/")
                asset = await s.http.get(httpx.URL(f"http://localhost{path}").join(address), headers=s.operator)
                assert asset.status_code == 200, address
                if "?v=" in address:
                    assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"


async def test_assets(start: Starter) -> None:
    async with start() as s:
        script = await s.http.get("/docs/docs.js?v=0")  # of another version of the program
        assert script.headers["Content-Type"].startswith("text/javascript")
        assert script.headers["Cache-Control"] == "no-cache"
        again = await s.http.get("/docs/docs.js", headers={"If-None-Match": script.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        for name in ("index.html", "swagger-ui-standalone-preset.js", "..%2Fdocs.py", "docs.js%00", "DOCS.JS"):
            assert (await s.http.get(f"http://localhost/docs/{name}")).status_code == 404, name


@asynccontextmanager
async def behind_prefix(server: ServerProcess) -> AsyncIterator[str]:
    """The address of a proxy that passes on every request under /pics/, and has nothing else."""
    host, port = server.url.removeprefix("http://").split(":")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert re.match(rb"(GET|POST) /pics/", head)
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        head = re.sub(rb"\r\nConnection: [^\r]+", b"\r\nConnection: close", head.replace(b"/pics/", b"/", 1))
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        with closing(inner_writer):
            inner_writer.write(head + body)
            writer.write(await inner_reader.read())
        await writer.drain()

    async with serving(forward) as outer:
        yield f"http://127.0.0.1:{outer}"


@pytest.mark.process
@in_browser
async def test_an_upload_from_the_page_behind_a_path_prefix(server: ServerProcess) -> None:
    async with behind_prefix(server) as origin, browsing(origin) as visit:
        page = visit.page
        await page.goto(f"{origin}/pics/docs/")
        await page.get_by_role("button", name="Authorize").click()
        await page.locator(".auth-container input").first.fill(Tokens(SECRET, "HS256").issue("alice"))
        await page.locator(".auth-btn-wrapper .authorize").first.click()
        await page.locator(".auth-btn-wrapper .btn-done").first.click()
        upload = page.locator("#operations-uploads-uploads_upload")
        await upload.locator(".opblock-summary-control").click()
        photo = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": make.tiny()}
        await upload.locator("input[type=file]").set_input_files(photo)  # type: ignore[arg-type]
        await upload.get_by_role("button", name="Execute").click()
        answer = upload.locator(".live-responses-table")
        await answer.get_by_text("Upload accepted.").wait_for()
        assert "202" in await answer.locator("tr.response .response-col_status").inner_text()
        assert await page.locator(".opblock").count() > 15
        visit.assert_clean()
        assert f"{origin}/pics/api/v1/images/upload" in visit.requested
