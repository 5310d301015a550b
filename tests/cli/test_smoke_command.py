"""`imgsvc smoke` against a real server, and through something on the way that spoils one thing."""

import asyncio
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from imgsvc.access.tokens import Tokens
from imgsvc.cli.smoke import Smoke, Step
from imgsvc.cli.smoke.token import NoToken, own_token
from imgsvc.testing import settings_in
from tests.process.test_commands import imgsvc
from tests.support.authorization_server import SAY_NO, authorization_server
from tests.support.s3 import S3Server
from tests.support.server_process import SECRET, InlineServer, ServerProcess
from tests.support.speed import seconds

pytestmark = pytest.mark.process
Spoil = Callable[[httpx.Request, httpx.Response], httpx.Response]
STEPS = ["health", "settings", "no token", "wrong type", "upload", "ready", "result"]
VARIANTS = ["thumbnail", "medium"]
STEPS += [*VARIANTS, "no metadata", "batch", "animation", "delete", "gone"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """With two variants, since most tests need no more."""
    with InlineServer(tmp_path_factory.mktemp("smoke"), IMAGE_SIZES="thumbnail=150,medium=600") as one:
        yield one


class OnTheWay(httpx.BaseTransport):
    """Passes on to the server, and the answer through `spoil`. Under `prefix`, if there is one."""

    def __init__(self, server: ServerProcess, spoil: Spoil = lambda _request, answer: answer, prefix: str = "") -> None:
        self._inner = httpx.HTTPTransport()
        self._server, self._spoil, self._prefix = httpx.URL(server.url), spoil, prefix
        self.seen: list[httpx.Request] = []

    def close(self) -> None:
        self._inner.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        path = request.url.raw_path.decode()
        if not path.startswith(f"{self._prefix}/"):
            return httpx.Response(404, text="nothing here")
        target = self._server.copy_with(raw_path=path.removeprefix(self._prefix).encode())
        passed = httpx.Request(request.method, target, headers=request.headers, content=request.read())
        passed.headers["Host"] = self._server.netloc.decode()
        answer = self._inner.handle_request(passed)
        answer.read()
        return self._spoil(request, answer)


def tour(on_the_way: OnTheWay, url: str = "http://img.test", seconds: float = 30) -> dict[str, Step]:
    token = Tokens(SECRET, "HS256").issue("smoke")
    with Smoke(url, token, "smoke", seconds, on_the_way) as smoke:
        return {step.name: step for step in smoke.steps()}


def failed(steps: dict[str, Step]) -> dict[str, str]:
    return {name: step.said for name, step in steps.items() if not step.passed}


def everything_is_gone(server: ServerProcess) -> bool:
    return server.files("storage") == [] and server.files("data/staging") == []


def test_from_the_command_line(server: ServerProcess) -> None:
    plain = imgsvc(server, "smoke", server.url)
    assert (plain.returncode, plain.stderr) == (0, "")
    assert all(line.startswith("✓ ") and " ms  " in line for line in plain.stdout.splitlines())
    told = imgsvc(server, "smoke", f"{server.url}/", "--json", "--bucket", "a/b", IMGSVC_TOKEN="no.good.token")
    steps = json.loads(told.stdout)
    assert told.returncode == 1 and [step["name"] for step in steps if step["passed"]] == STEPS[:3]
    assert steps[3]["said"] == "401 Invalid token instead of 415"
    assert everything_is_gone(server)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["ftp://x"], "absolute http(s) URL"), (["http://x.test?y"], "absolute"), (["http://x.test"], "pass a token")],
)
def test_wrong_arguments(server: ServerProcess, arguments: list[str], words: str) -> None:
    answer = imgsvc(server, "smoke", *arguments)
    assert answer.returncode == 2 and words in answer.stderr and answer.stdout == ""


def test_all_steps_in_order(server: ServerProcess) -> None:
    steps = tour(OnTheWay(server))
    assert failed(steps) == {} and list(steps) == STEPS
    assert steps["medium"].said.startswith("600 x 450, ")
    assert everything_is_gone(server)


def webp(change: Callable[[Image.Image], Image.Image], **options: object) -> Spoil:
    """Every picture on the way is changed."""

    def spoil(_request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if answer.headers.get("Content-Type") != "image/webp":
            return answer
        buffer = io.BytesIO()
        change(Image.open(io.BytesIO(answer.content))).save(buffer, "WEBP", **options)
        return httpx.Response(200, headers={"Content-Type": "image/webp"}, content=buffer.getvalue())

    return spoil


def swapped(image: Image.Image) -> Image.Image:
    red, green, blue = image.convert("RGB").split()
    return Image.merge("RGB", (green, blue, red))


def exif() -> bytes:
    data = Image.Exif()
    data[0x010F] = "camera"
    return data.tobytes()


def refused(method: str, path: str, status: int = 503) -> Spoil:
    def spoil(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        meant = request.method == method and request.url.path.startswith(path)
        return httpx.Response(status, text="<h1>from a proxy</h1>") if meant else answer

    return spoil


def without_header(name: str) -> Spoil:
    def spoil(_request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        answer.headers.pop(name, None)
        return answer

    return spoil


def in_json(path: str, **members: object) -> Spoil:
    def spoil(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if not (path in request.url.path and answer.is_success):
            return answer
        return httpx.Response(answer.status_code, json={**answer.json(), **members})

    return spoil


@pytest.mark.parametrize(
    ("spoil", "names", "words"),
    [
        (webp(lambda image: image.rotate(180)), [*VARIANTS, "no metadata", "animation"], "wrong orientation"),
        (webp(swapped), [*VARIANTS, "no metadata", "animation"], "its profile was ignored"),
        (
            webp(lambda image: image.resize((50, 50))),
            [*VARIANTS, "no metadata", "animation"],
            "has 50 x 50 pixels and not",
        ),
        (webp(lambda image: image, exif=exif()), ["no metadata", "animation"], "thumbnail contains a "),
        (webp(lambda image: image, icc_profile=b"x" * 200), ["no metadata", "animation"], "chunk with metadata"),
        (
            refused("GET", "/storage/", 404),
            [*VARIANTS, "no metadata", "animation"],
            "answers 404, but not from the service",
        ),
        (refused("DELETE", "/api/v1/images/"), ["animation", "delete", "gone"], "503, but not from the service"),
        (
            refused("GET", "/info"),
            ["settings", "result", "variants", "no metadata", "batch", "animation"],
            "503, but not",
        ),
        (without_header("X-RateLimit-Reset"), ["upload"], "202 without X-RateLimit-Reset"),
        (without_header("X-Trace-ID"), ["upload"], "a different trace ID"),
        (without_header("WWW-Authenticate"), ["no token"], "401, but not from the service"),
        (in_json("/batch", missing=[]), ["batch"], "found 1, missing []"),
        (in_json("/result", urls={}), ["result", *VARIANTS, "no metadata", "animation"], "has the variants"),
    ],
)
def test_what_is_spoilt_is_seen(server: ServerProcess, spoil: Spoil, names: list[str], words: str) -> None:
    steps = tour(OnTheWay(server, spoil))
    assert list(failed(steps)) == names
    assert words in failed(steps)[names[0]]
    if "delete" not in names:
        assert everything_is_gone(server)


def test_image_is_removed_when_the_tour_breaks_off(server: ServerProcess) -> None:
    on_the_way = OnTheWay(server)
    with Smoke("http://img.test", Tokens(SECRET, "HS256").issue("smoke"), "smoke", 30, on_the_way) as smoke:
        for step in smoke.steps():
            if step.name == "result":
                break
    assert on_the_way.seen[-1].method == "DELETE"
    assert everything_is_gone(server)


def test_time_is_over(server: ServerProcess) -> None:
    began = time.monotonic()
    on_the_way = OnTheWay(server, in_json("/api/v1/images/jobs/", status="processing"))
    steps = tour(on_the_way, seconds=seconds(2))
    assert time.monotonic() - began < seconds(15)
    assert "the job is still processing at the end of the time" in failed(steps)["ready"]
    assert "DELETE" in [request.method for request in on_the_way.seen]
    assert everything_is_gone(server)


def test_variants_that_live_elsewhere(server: ServerProcess) -> None:
    """As S3 has them: presigned addresses in the result, a redirect from /direct, 403 for what is not there."""
    elsewhere = "http://s3.test"

    def spoil(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if request.url.host == "s3.test":
            return answer if answer.is_success else httpx.Response(403)
        if request.url.path.endswith("/result") and answer.is_success:
            body = answer.json()
            urls = {name: f"{elsewhere}{url}?X-Amz-Signature=1" for name, url in body["urls"].items()}
            paths.update(body["urls"])
            return httpx.Response(200, json={**body, "urls": urls})
        if request.url.path.endswith("/direct") and answer.is_success:
            name = request.url.params.get("size", "medium")
            return httpx.Response(307, headers={"Location": f"{elsewhere}{paths[name]}?X-Amz-Signature=2"})
        return answer

    paths: dict[str, str] = {}
    on_the_way = OnTheWay(server, spoil)
    assert failed(tour(on_the_way)) == {}
    there = [request for request in on_the_way.seen if request.url.host == "s3.test"]
    assert len(there) == 7 and not [request for request in there if "Authorization" in request.headers]


def test_path_prefix(tmp_path: Path, server: ServerProcess) -> None:
    unaware = tour(OnTheWay(server, prefix="/img"), "http://img.test/img")
    assert set(failed(unaware)) == {*VARIANTS, "no metadata", "animation"}
    assert "is PUBLIC_URL set?" in failed(unaware)["thumbnail"]
    with InlineServer(tmp_path, PUBLIC_URL="http://img.test/img", IMGSVC_SERVER_ALLOWED_HOSTS="*") as aware:
        steps = tour(OnTheWay(aware, prefix="/img"), "http://img.test/img")
    assert failed(steps) == {}
    assert steps["original"].said.startswith("1600 x 1200, ")


async def test_token_is_made_for_this_machine_only(tmp_path: Path) -> None:
    public = {"service": {"public_url": "https://img.example/p"}}
    with_secret = settings_in(tmp_path, auth={"jwt_secret_key": SECRET}, **public)
    for url in ("http://127.0.0.1:8000", "http://localhost/x", "http://[::1]:1", "https://img.example/p/"):
        made = own_token(with_secret, url)
        assert made
        assert (await Tokens(SECRET, "HS256").verify(made)).user_id == "smoke"
    for url in ("http://10.0.0.1", "https://img.example", "https://img.example/public", "http://localhost.example"):
        with pytest.raises(NoToken, match="another machine"):
            own_token(with_secret, url)
    with pytest.raises(NoToken, match="there is no secret in"):
        own_token(settings_in(tmp_path / "none"), "http://127.0.0.1")
    assert not (tmp_path / "none").exists()
    (tmp_path / "jwt_secret").write_text(SECRET)  # left from before tokens came from another issuer
    foreign = settings_in(tmp_path, auth={"jwt_algorithm": "RS256", "jwks_url": "https://login.example/keys"})
    with pytest.raises(NoToken, match="with RS256 only your issuer can create one"):
        own_token(foreign, "http://127.0.0.1")


def unsigned(url: str) -> str:
    return url.partition("?")[0]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    settings = {"IMAGE_SIZES": "thumbnail=150", "IMGSVC_STORAGE_SIGNED_URLS": "true", "AUTH_PERMISSIONS": "claims"}
    with InlineServer(tmp_path_factory.mktemp("private"), **settings) as one:
        yield one


class TestPrivateReading:
    """Bytes for signed URLs only, and permissions in the token."""

    def token(self, *permissions: str) -> str:
        return Tokens(SECRET, "HS256").issue("smoke", permissions=permissions)

    def tour(self, server: ServerProcess, spoil: Spoil) -> dict[str, str]:
        token = self.token("image:upload", "image:read", "image:delete")
        with Smoke("http://img.test", token, "smoke", 30, OnTheWay(server, spoil)) as smoke:
            return failed({step.name: step for step in smoke.steps()})

    def test_all_is_well(self, private: ServerProcess) -> None:
        told = imgsvc(private, "smoke", private.url)
        assert (told.returncode, told.stderr) == (0, ""), told.stdout
        assert "signed URLs only" in told.stdout and "no bytes for another signature" in told.stdout
        assert everything_is_gone(private)

    def test_token_without_the_permissions(self, private: ServerProcess) -> None:
        told = imgsvc(private, "smoke", private.url, IMGSVC_TOKEN=self.token("image:read"))
        assert told.returncode == 1
        assert "the token needs image:upload, image:read, image:delete" in told.stdout

    def test_door_that_stands_open_is_seen(self, private: ServerProcess) -> None:
        """Something before the service gives what it has kept to who may not have it."""
        kept: dict[str, httpx.Response] = {}

        def keeps(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
            url = unsigned(str(request.url))
            if answer.is_success and request.method == "GET" and "/health" not in url:
                kept[url] = httpx.Response(200, headers=answer.headers, content=answer.content)
            return kept.get(url, answer)

        def bytes_only(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
            return keeps(request, answer) if "/storage/" in str(request.url) else answer

        spoilt = self.tour(private, keeps)
        assert spoilt["private"].startswith("without a token /jobs/") and "gone" in spoilt
        assert self.tour(private, bytes_only)["private"].endswith("to another signature")


async def test_permissions_that_another_server_gives(tmp_path: Path) -> None:
    settings = {"IMAGE_SIZES": "thumbnail=150", "AUTH_PERMISSIONS": "remote", "AUTH_CACHE_ENABLED": "false"}
    async with authorization_server() as server_asked:
        with InlineServer(tmp_path, AUTH_API_URL=server_asked.url, **settings) as server:
            told = await asyncio.to_thread(imgsvc, server, "smoke", server.url)
            assert told.returncode == 0, told.stdout
            server_asked.act = SAY_NO
            told = await asyncio.to_thread(imgsvc, server, "smoke", server.url)
            assert told.returncode == 1 and "the token needs image:upload, image:read, image:delete" in told.stdout
    assert ("default-org", "smoke", "image:upload") in server_asked.questions


def test_variants_in_s3(s3: S3Server, tmp_path: Path) -> None:
    """Private too: presigned URLs, which the store itself checks."""
    bucket = s3.bucket()
    settings = {"IMAGE_SIZES": "thumbnail=150", **s3.environment(bucket)}
    with InlineServer(tmp_path, IMGSVC_STORAGE_SIGNED_URLS="true", **settings) as server:
        told = imgsvc(server, "smoke", server.url)
        assert told.returncode == 0 and "no bytes for another signature" in told.stdout, told.stdout
        assert server.stop() == 0
        assert s3.keys(bucket) == []
        server.environ = {**server.environ, "IMGSVC_STORAGE_SIGNED_URLS": "false"}
        server.start()
        told = imgsvc(server, "smoke", server.url)
        assert told.returncode == 0 and "private" not in told.stdout, told.stdout
    assert s3.keys(bucket) == []
