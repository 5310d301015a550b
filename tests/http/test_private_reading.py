"""Private reading: who gets URLs, where they work, and that it is off unless it is wanted."""

import uuid
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import pytest_asyncio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from imgsvc import testing
from imgsvc.access.signing import KEY_FILE
from tests.conftest import Service, Starter, shared_service
from tests.support.papers import runs
from tests.support.private_service import (
    IMAGES,
    PRIVATE,
    READERS,
    TINY,
    Image,
    changed,
    content,
    headers_of,
    outcome,
    uploaded,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
s = shared_service(storage=PRIVATE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def image(s: Service) -> Image:
    return await uploaded(s)


@pytest.mark.parametrize("endpoint", ["", "?size=large", "/all", "result"])
@pytest.mark.parametrize("who", READERS)
async def test_who_gets_urls(s: Service, image: Image, who: str, endpoint: str) -> None:
    path = f"{IMAGES}/jobs/{image.job_id}/result" if endpoint == "result" else f"{IMAGES}/{image.image_id}{endpoint}"
    status, code = READERS[who]
    if code == "image_not_found" and endpoint == "result":
        code = "job_not_found"
    response = await s.http.get(path, headers=headers_of(s, who))
    assert outcome(response) == (status, code)
    assert response.headers["Cache-Control"] == "private, no-store"
    assert response.headers["Vary"] == "Authorization"
    assert ("WWW-Authenticate" in response.headers) == (status == 401)
    assert ("signature=" in response.text) == (status == 200)
    if status != 200:
        assert image.image_id not in response.text
        return
    body = response.json()
    urls = body["urls"] if "urls" in body else {body["size"]: body["url"]}
    for url in urls.values():
        assert (await s.http.get(url)).headers["Content-Type"] == "image/webp"
    if endpoint == "result":
        assert ("uploader_id" in body["metadata"]) == (who == "uploader")


@pytest.mark.parametrize("who", READERS)
async def test_batch_lists_what_is_not_ones_own_as_missing(s: Service, image: Image, who: str) -> None:
    unknown = str(uuid.uuid4())
    path = f"{IMAGES}/batch?image_ids={image.image_id},{unknown}"
    response = await s.http.get(path, headers=headers_of(s, who))
    status, code = READERS[who]
    if status == 401:
        assert outcome(response) == (status, code)
        return
    body = response.json()
    if who == "stranger":
        assert (body["images"], body["missing"]) == ([], [image.image_id, unknown])
        return
    assert body["missing"] == [unknown]
    assert (await s.http.get(body["images"][0]["url"])).status_code == 200


async def test_another_orgs_image_is_as_an_unknown_one(start: Starter) -> None:
    """Completed, failed, waiting or without the variant: in nothing different from what never existed."""
    async with start(storage=PRIVATE) as s:
        done, failed = await s.completed(TINY), await s.ended(await s.upload(TINY[: len(TINY) // 2]))
        s.state.jobs.queue.hold()
        waiting = (await s.upload(TINY)).json()
        unknown = {"image_id": str(uuid.uuid4()), "job_id": str(uuid.uuid4())}
        stranger = s.bearer(org_id="elsewhere") | {"X-Trace-ID": "one"}
        for form in ("{image_id}", "{image_id}?size=huge", "{image_id}/all", "jobs/{job_id}/result"):
            answers = set()
            for ids in (unknown, done, failed, waiting):
                path = f"{IMAGES}/{form.format(image_id=ids['image_id'], job_id=ids['job_id'])}"
                answer = await s.http.get(path, headers=stranger)
                answers.add((answer.status_code, answer.content, str(sorted(answer.headers.items()))))
            assert len(answers) == 1, answers
            assert answers.pop()[0] == 404
        mine = await s.http.get(f"{IMAGES}/{waiting['image_id']}", headers=s.bearer())
        assert outcome(mine) == (404, "image_not_ready")
        result = await s.http.get(f"{IMAGES}/jobs/{waiting['job_id']}/result", headers=s.bearer())
        assert outcome(result) == (409, "not_completed")


async def test_job_page_stays_public_and_holds_no_url(s: Service, image: Image) -> None:
    response = await s.http.get(f"{IMAGES}/jobs/{image.job_id}")
    assert response.json()["ready"] == ["original", "large", "medium", "thumbnail"]
    assert "signature" not in response.text and "/storage/" not in response.text
    for who, seen in ((s.bearer(org_id="elsewhere"), False), (s.bearer(), True)):
        body = (await s.http.get(f"{IMAGES}/jobs/{image.job_id}", headers=who)).json()
        assert [body["thumbhash"] is not None, body["dominant_color"] is not None] == [seen, seen]
    assert response.json()["thumbhash"] is response.json()["dominant_color"] is None


async def test_permission_to_read_is_asked_for(start: Starter) -> None:
    async with start(storage=PRIVATE, auth={"permissions": "claims"}) as s:
        writer, reader = (s.bearer(permissions=given) for given in (["image:upload"], ["image:read"]))
        files, fields = {"file": ("a.jpg", TINY)}, {"bucket": "b"}
        receipt = await s.http.post(f"{IMAGES}/upload", data=fields, files=files, headers=writer)
        job = await s.ended(receipt)
        for path in (
            f"{IMAGES}/{job['image_id']}",
            f"{IMAGES}/{job['image_id']}/all",
            f"{IMAGES}/jobs/{job['job_id']}/result",
            f"{IMAGES}/batch?image_ids={job['image_id']}",
            f"{IMAGES}/{uuid.uuid4()}",
            f"{IMAGES}/jobs/x/result",
            f"{IMAGES}/batch?image_ids=",
        ):
            refused = await s.http.get(path, headers=writer)
            assert outcome(refused) == (403, "permission_denied"), path
            assert refused.json()["detail"] == "Permission denied: image:read"
            assert (await s.http.get(path, headers=reader)).status_code in (200, 404, 422), path
        info = (await s.http.get(f"{IMAGES}/{job['image_id']}", headers=reader)).json()
        assert (await s.http.get(info["url"])).status_code == 200
        denials = await s.sql(
            "SELECT metadata ->> 'permission' FROM image_upload_events WHERE event_type = 'read_denied'"
        )
        assert denials == [("image:read",)]  # once an hour


async def test_keys_are_rotated_by_a_restart(start: Starter) -> None:
    first, second, third = (f"{name} key, which is longer than 32 bytes" for name in ("first", "second", "third"))
    async with start(storage=PRIVATE) as s:
        image = await uploaded(s)
        made = (s.settings.data / KEY_FILE).read_text().strip()
    answers = []
    for storage in (
        {"url_signing_key_previous": made},
        {"url_signing_key": first, "url_signing_key_previous": made},
        {"url_signing_key": second, "url_signing_key_previous": first},
        {"url_signing_key": third},
        {},
    ):
        async with start(storage=PRIVATE | storage) as s:
            answers.append(outcome(await s.http.get(image.urls["medium"])))
            info = (await s.http.get(f"{IMAGES}/{image.image_id}", headers=s.bearer())).json()
            assert (await s.http.get(info["url"])).status_code == 200
    bad = (403, "signature_invalid")
    assert answers == [(200, ""), (200, ""), bad, bad, (200, "")]


class Prefixed:
    """A proxy that takes `/pics` away, or says that it is the application's root (ASGI's root_path)."""

    def __init__(self, app: ASGIApp, *, strips: bool) -> None:
        self.app, self.strips = app, strips

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["path"].startswith("/pics/")
        inner = {"path": scope["path"].removeprefix("/pics")} if self.strips else {"root_path": "/pics"}
        await self.app({**scope, **inner}, receive, send)


@pytest.mark.parametrize("strips", [True, False])
async def test_behind_a_path_prefix(start: Starter, strips: bool) -> None:
    public = "https://img.example/pics"
    hosts = {"allowed_hosts": ["img.example", "localhost"]}
    async with start(storage=PRIVATE, service={"public_url": public}, server=hosts) as s:
        image = await s.completed(TINY)
        proxy = httpx.ASGITransport(app=Prefixed(s.app, strips=strips))
        async with httpx.AsyncClient(transport=proxy, base_url=public) as http:
            info = (await http.get(f"{public}{IMAGES}/{image['image_id']}", headers=s.bearer())).json()
            assert info["url"].startswith(f"{public}/storage/")
            assert (await http.get(info["url"])).status_code == 200
            assert outcome(await http.get(info["url"].replace("_medium", "_large")))[0] == 403
            assert (await http.get(public + s.state.stores.urls.of_page(image["image_id"], "large"))).status_code == 200


async def test_application_that_shares_the_key_signs_for_itself(start: Starter) -> None:
    """With the lines that the guide gives it."""
    (lines,) = runs("docs/guides/private-images.md", "signing")
    own: dict[str, Any] = {}
    exec(lines, own)
    key = "the key of these tests, which is long enough"
    async with start(storage=PRIVATE | {"url_signing_key": key}) as s:
        image = await uploaded(s)
        for size in ("thumbnail", "large"):
            assert await content(s, own["signed"](key, image.image_id, size)) == await content(s, image.urls[size])
        assert outcome(await s.http.get(own["signed"](key, image.image_id, "large", -1))) == (403, "signature_expired")
        assert outcome(await s.http.get(own["signed"](key + "x", image.image_id, "large")))[1] == "signature_invalid"


async def broken(_: Request) -> Response:
    raise RuntimeError("on purpose")


async def test_nothing_signed_is_logged(s: Service, image: Image) -> None:
    s.app.router.routes.append(Route("/broken", broken))
    signed = [*image.urls.values(), image.direct(s)]
    signatures = {dict(parse_qsl(urlsplit(url).query))["signature"] for url in signed}
    try:
        with capture_logs() as logs:
            for url in signed:
                query = urlsplit(url).query
                for asked in (url, changed(url, expires="1"), f"/broken?{query}", f"/nothing?{query}"):
                    response = await s.http.get(asked)
                    assert response.status_code == 200 or not any(one in response.text for one in signatures)
    finally:
        s.app.router.routes.pop()
    assert len(logs) > 20 and any(entry.get("exc_info") for entry in logs)
    for words in (*signatures, "signature=", "expires="):
        assert words not in repr(logs)


async def test_off_it_changes_nothing(start: Starter) -> None:
    async with start() as s:
        job = await s.completed(TINY)
        assert not (s.settings.data / KEY_FILE).exists()
        info = (await s.http.get(f"{IMAGES}/{job['image_id']}")).json()
        assert info["url"] == f"/storage/photos/processed/medium/{job['image_id']}_medium.webp"
        direct = f"{IMAGES}/{job['image_id']}/direct"  # names no version of the variant
        for path, lasting in ((info["url"], "max-age=31536000, immutable"), (direct, "max-age=3600")):
            for query in ("", "?signature=x", "?expires=1&signature=x", "?expires=1&expires=2"):
                response = await s.http.get(f"{path}{query}")
                assert response.status_code == 200
                assert response.headers["Cache-Control"] == f"public, {lasting}"


@pytest.mark.parametrize("storage", ["local", "memory"])
async def test_our_test_double_reads_privately_too(storage: Literal["local", "memory"]) -> None:
    async with testing.client(storage=storage, signed_urls=True) as client:
        receipt = (await client.upload(testing.picture())).json()
        await client.ready(receipt["job_id"])
        urls = (await client.get(f"{IMAGES}/jobs/{receipt['job_id']}/result")).json()["urls"]
        assert "signature=" in urls["large"]
        assert (await client.get(urls["large"])).headers["Content-Type"] == "image/webp"
        assert (await client.get(urls["large"].partition("?")[0])).status_code == 403


@pytest.mark.parametrize("who", ["operator", "nobody", "uploader", "public"])
async def test_dashboard_shows_pictures_to_the_operator_only(start: Starter, who: str) -> None:
    async with start(storage=PRIVATE, operator={"public": who == "public"}) as s:
        image = await uploaded(s)
        headers = {} if who == "public" else headers_of(s, who)
        data = await s.http.get("/dashboard/data", headers=headers)
        shown = await s.http.get(f"/api/v1/operator/jobs/{image.job_id}", headers=headers)
        if who == "operator":
            (job,) = data.json()["processing"]["recent_jobs"]
            small, large = job["thumbnail_url"], job["picture_url"]
            assert shown.json()["thumbnail_url"] == small
            assert await content(s, small) == await content(s, image.urls["thumbnail"])
            assert await content(s, large) == await content(s, image.urls["original"])
        else:
            assert (data.status_code, shown.status_code) == (200 if who == "public" else 401, 401)
            assert "signature=" not in data.text + shown.text and "/storage/team" not in data.text
