"""What a signed URL opens, until when, and that a refusal reveals nothing."""

import re
import time
import uuid
from functools import partial
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsvc.access.signing import STEP_SECONDS
from tests.conftest import Service, shared_service
from tests.support.private_service import (
    IMAGES,
    PRIVATE,
    READERS,
    Image,
    changed,
    content,
    headers_of,
    outcome,
    signed_until,
    uploaded,
    with_path,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR = 3600
BYTES = re.compile(r"private, max-age=(\d+)")
few = settings(deadline=None, database=None, max_examples=60)
s = shared_service(storage=PRIVATE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def image(s: Service) -> Image:
    return await uploaded(s)


@pytest.mark.parametrize("kind", ["storage", "direct"])
@pytest.mark.parametrize("who", READERS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_signature_decides_and_nothing_else(s: Service, image: Image, who: str, kind: str, method: str) -> None:
    """A token neither helps nor hurts."""
    url = image.urls["medium"] if kind == "storage" else image.direct(s)
    expires = signed_until(url)
    for asked, status, code in (
        (url, 200, ""),
        (changed(url, expires=None, signature=None), 403, "signature_required"),
        (changed(url, expires=None), 403, "signature_required"),
        (changed(url, signature=None), 403, "signature_required"),
        (changed(url, signature="", expires=""), 403, "signature_invalid"),
        (changed(url, signature="a" * 43), 403, "signature_invalid"),
        (changed(url, expires=str(expires + 1)), 403, "signature_invalid"),
        (changed(url, expires="1"), 403, "signature_invalid"),
        (f"{url}&expires={expires}", 403, "signature_invalid"),
        (f"{url}&signature=x", 403, "signature_invalid"),
    ):
        response = await s.http.request(method, asked, headers=headers_of(s, who))
        assert outcome(response) == (status, "" if method == "HEAD" else code), asked
        if status == 403:
            assert response.headers["Cache-Control"] == "private, no-store"
            assert "ETag" not in response.headers


async def test_refusal_does_not_tell_whether_there_is_an_image(s: Service, image: Image) -> None:
    gone = await uploaded(s)
    assert (await s.http.delete(f"{IMAGES}/{gone.image_id}", headers=s.bearer())).status_code == 200
    key = "/storage/team/a/processed/medium/{}_medium.webp"
    forms = (key, f"{IMAGES}/{{}}/direct", f"{IMAGES}/{{}}/direct?size=huge", f"{IMAGES}/{{}}/direct?size=../x")
    headers = {"X-Trace-ID": "one"}
    for query in ("", f"expires={int(time.time()) + 60}&signature={'a' * 43}"):
        answers = set()
        for form in forms:
            for image_id in (image.image_id, gone.image_id, str(uuid.uuid4()), "x", "%00", "%2e%2e"):
                url = f"http://localhost{form.format(image_id)}{'&' if '?' in form else '?'}{query}"
                answer = await s.http.get(url, headers=headers)
                answers.add((answer.status_code, answer.content, str(sorted(answer.headers.items()))))
        assert len(answers) == 1, answers
        assert answers.pop()[0] == 403


async def test_deleted_image_is_not_found_with_a_good_signature(s: Service) -> None:
    gone = await uploaded(s)
    urls = [*gone.urls.values(), gone.direct(s)]
    assert all([(await s.http.get(url)).status_code == 200 for url in urls])
    await s.http.delete(f"{IMAGES}/{gone.image_id}", headers=s.bearer())
    assert {outcome(await s.http.get(url)) for url in urls} == {(404, "image_not_found")}


async def test_signed_for_one_thing_opens_no_other(s: Service, image: Image) -> None:
    other = await uploaded(s)
    small, direct = image.urls["thumbnail"], image.direct(s, "thumbnail")
    for url in (
        with_path(small, urlsplit(image.urls["large"]).path),
        with_path(small, urlsplit(other.urls["thumbnail"]).path),
        with_path(small, f"{IMAGES}/{image.image_id}/direct"),
        with_path(direct, urlsplit(small).path),
        with_path(direct, f"{IMAGES}/{other.image_id}/direct"),
        with_path(direct, f"{IMAGES}/{image.image_id.upper()}/direct"),
        changed(direct, size="large"),
        changed(direct, size=None),
        changed(direct, size=""),
        changed(direct, size="thumbnail "),
        f"{direct}&size=large",
        f"{direct}&size=thumbnail",
    ):
        assert outcome(await s.http.get(url)) == (403, "signature_invalid"), url
    assert (await s.http.get(changed(image.direct(s), size=None))).content == await content(s, image.urls["medium"])
    assert (await s.http.get(f"{small}&size=large&v=2")).content == await content(s, direct)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/storage/", "/storage//"),
        ("/storage/", "/storage/%2e/"),
        ("/storage/team", "/storage/x/%2e%2e/team"),
        (".webp", "%252ewebp"),
        ("/a/", "%252Fa/"),
        (".webp", ".webp/"),
        (".webp", ".webp%00"),
        (".webp", ".webp%20"),
        (".webp", ".webp/x"),
        (".webp", ".WEBP"),
        ("team", "Team"),
        ("team", "te%CC%81am"),
        ("team", "te%ffam"),
        ("team/a", "team%5Ca"),
    ],
)
async def test_changed_path_is_refused(s: Service, image: Image, old: str, new: str) -> None:
    url = image.urls["medium"]
    path = urlsplit(url).path.replace(old, new)
    assert outcome(await s.http.get(with_path(url, path))) == (403, "signature_invalid")


async def test_other_spelling_of_the_same_path_is_the_same(s: Service, image: Image) -> None:
    """RFC 3986 section 6.2.2.2: proxies may write %61 as a, or a as %61; the path, decoded once, is what is signed."""
    url = image.urls["medium"]
    path = "/storage/" + "".join(f"%{byte:02x}" for byte in urlsplit(url).path[9:].encode())
    assert (await s.http.get(with_path(url, path))).content == await content(s, url)


def meaning(url: str) -> list[object]:
    """What of a URL counts."""
    found = httpx.URL(url)
    sizes = (found.params.get_list("size") or ["medium"]) if found.path.endswith("/direct") else []
    return [found.path, sizes, found.params.get_list("expires"), found.params.get_list("signature")]


@few
@given(st.data())
async def test_no_changed_url_opens_anything(s: Service, image: Image, data: st.DataObject) -> None:
    url = "http://localhost" + data.draw(st.sampled_from([image.urls["medium"], image.direct(s)]))
    at = data.draw(st.integers(len("http://localhost/"), len(url)))
    put = data.draw(st.sampled_from([*"aZ09-_./&=+", "%25", "%0a", "%2f", "&size=large", ""]))
    mutated = url[:at] + put + url[at + data.draw(st.integers(0, 1)) :]
    same = meaning(mutated) == meaning(url)
    status = (await s.http.get(mutated)).status_code
    assert (status == 200) == same, mutated
    assert status in (200, 401, 403, 404, 405), mutated  # without `/direct` it is the page that asks for a token


@pytest.mark.parametrize("kind", ["storage", "direct"])
async def test_caches_are_told_how_long(s: Service, image: Image, kind: str) -> None:
    url = image.urls["medium"] if kind == "storage" else image.direct(s)
    whole = await s.http.get(url)
    same, ranged = {"If-None-Match": whole.headers["ETag"]}, {"Range": "bytes=0-9"}
    for method, headers, status in (
        ("GET", {}, 200),
        ("HEAD", {}, 200),
        ("GET", same, 304),
        ("HEAD", same, 304),
        ("GET", ranged, 206),
        ("GET", ranged | {"If-Range": whole.headers["ETag"]}, 206),
    ):
        response = await s.http.request(method, url, headers=headers)
        assert response.status_code == status
        found = BYTES.fullmatch(response.headers["Cache-Control"])
        assert found and HOUR - 30 < int(found[1]) <= HOUR + STEP_SECONDS
        assert response.headers["ETag"] == whole.headers["ETag"]
        assert response.headers["Last-Modified"] == whole.headers["Last-Modified"]
        if status == 206:
            assert response.content == whole.content[:10]
    for headers, status, code in (
        ({"Range": "bytes=999999-"}, 416, "range_not_satisfiable"),
        ({"If-Match": '"x"'}, 412, "precondition_failed"),
    ):
        response = await s.http.get(url, headers=headers)
        assert outcome(response) == (status, code)
        assert response.headers["Cache-Control"] == "private, no-store"


async def test_url_is_good_until_its_end(s: Service, image: Image) -> None:
    urls, signatures = [image.urls["medium"], image.direct(s)], s.state.stores.urls.signatures
    assert signatures is not None
    clock = signatures._clock
    try:
        for url in urls:
            end = signed_until(url)
            for moment, left in ((end - 10.5, 10), (end - 1, 1), (end - 0.5, 0), (end, None), (end + 1e6, None)):
                signatures._clock = partial(float, moment)
                for headers in ({}, {"If-None-Match": "*"}, {"Range": "bytes=0-9"}):
                    response = await s.http.get(url, headers=headers)
                    if left is None:
                        assert outcome(response) == (403, "signature_expired")
                        assert outcome(await s.http.get(changed(url, signature="a" * 43)))[1] == "signature_invalid"
                    else:
                        assert response.headers["Cache-Control"] == f"private, max-age={left}"
    finally:
        signatures._clock = clock


async def test_repeated_answers_give_the_same_url(s: Service, image: Image) -> None:
    signatures = s.state.stores.urls.signatures
    assert signatures is not None
    clock, begin = signatures._clock, time.time() // STEP_SECONDS * STEP_SECONDS
    try:
        seen = set()
        for second in (1, 20, 59):
            signatures._clock = partial(float, begin + second)
            answer = await s.http.get(f"{IMAGES}/{image.image_id}", headers=s.bearer())
            seen.add(answer.json()["url"])
        assert len(seen) == 1
    finally:
        signatures._clock = clock
