"""An image's info and bytes: sizes, conditional requests and ranges (RFC 9110), and what /storage does not serve."""

import uuid
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from io import BytesIO

import httpx
import pytest
from PIL import Image

from fixtures import make
from tests.conftest import Service, Starter, shared_service

TINY = make.tiny()
IMAGES = "/api/v1/images"
SIDES = {"thumbnail": 150, "medium": 600, "large": 640, "original": 640}
IMMUTABLE = "public, max-age=31536000, immutable"
HOURLY = "public, max-age=3600"  # of a URL that names no version
shared = shared_service()


def direct(job: dict[str, str], size: str = "medium") -> str:
    return f"{IMAGES}/{job['image_id']}/direct?size={size}"


def problem(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status, str(response.url)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["code"] == code
    return str(response.json()["detail"])


async def test_info(start: Starter) -> None:
    async with start() as s:
        job = await s.completed(make.jpeg(640, 480), bucket="team/a")
        image_id = job["image_id"]
        for size, side in SIDES.items():
            response = await s.http.get(f"{IMAGES}/{image_id}", params={"size": size})
            assert response.status_code == 200
            assert response.headers["Cache-Control"] == "private, no-store"
            assert response.headers["Vary"] == "Authorization"
            body = response.json()
            assert (body["image_id"], body["size"]) == (image_id, size)
            assert body["url"] == f"/storage/team/a/processed/{size}/{image_id}_{size}.webp"
            found = body["metadata"]["dimensions"]
            assert body["metadata"]["dominant_color"].startswith("#")
            stored = await s.http.get(body["url"])
            assert stored.content == await s.variant(image_id, size)
            width, height = Image.open(BytesIO(stored.content)).size
            assert max(width, height) == side
            assert found == {
                "width": width,
                "height": height,
                "aspect_ratio": round(width / height, 3),
                "format": "webp",
                "size_bytes": len(stored.content),
            }
        default = (await s.http.get(f"{IMAGES}/{image_id}")).json()
        assert default == (await s.http.get(f"{IMAGES}/{image_id}?size=medium")).json()
        assert default == (await s.http.get(f"{IMAGES}/{image_id.upper()}")).json()
        assert (await s.http.get(f"{IMAGES}/{image_id}/direct")).content == await s.variant(image_id, "medium")


async def test_sizes_that_are_none(start: Starter) -> None:
    async with start() as s:
        job = await s.completed(TINY)
        for path in (f"{IMAGES}/{job['image_id']}", f"{IMAGES}/{job['image_id']}/direct"):
            for size in ("x", "small", "thumb", "a" * 32, "webp"):
                response = await s.http.get(path, params={"size": size})
                assert problem(response, 404, "size_not_available") == f"Size '{size}' not available"
                assert ", ".join(response.json()["sizes"]) in response.json()["reason"] != ""
            for size in ("", "Medium", "../x", "a/b", "a" * 33, "-a", "medium\n", "medium\0", "größe", "<script>"):
                response = await s.http.get(path, params={"size": size})
                problem(response, 422, "validation_error")
                assert [detail["loc"] for detail in response.json()["details"]] == [["query", "size"]]
                assert repr(size) in response.json()["reason"]
                assert "<" not in response.text


async def test_unknown_and_malformed_ids(start: Starter) -> None:
    async with start() as s:
        job = await s.completed(TINY)
        wrong = ["x", "%00", "%2e%2e", "a" * 5000, uuid.uuid4().hex, str(uuid.uuid4()), job["job_id"]]
        for image_id in wrong:
            for path in (f"{IMAGES}/{image_id}", f"{IMAGES}/{image_id}/direct"):
                assert problem(await s.http.get(path), 404, "image_not_found") == "Image not found"


async def test_not_ready(start: Starter, photo: bytes) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        image_id = (await s.upload(photo)).json()["image_id"]
        for path in (f"{IMAGES}/{image_id}", f"{IMAGES}/{image_id}/direct"):
            for size in SIDES:
                response = await s.http.get(path, params={"size": size})
                problem(response, 404, "image_not_ready")
                assert 1 <= int(response.headers["Retry-After"]) <= 60
            problem(await s.http.get(path, params={"size": "x"}), 404, "size_not_available")
        key = f"/storage/photos/processed/medium/{image_id}_medium.webp"
        problem(await s.http.get(key), 404, "image_not_found")


async def test_headers_of_the_bytes(start: Starter, photo: bytes) -> None:
    async with start() as s:
        job = await s.completed(photo)
        tags = set()
        for size in SIDES:
            stored = f"/storage/photos/processed/{size}/{job['image_id']}_{size}.webp"
            answers = [await s.http.get(direct(job, size)), await s.http.get(stored)]
            for path in (direct(job, size), stored):
                answers.append(head := await s.http.head(path))
                assert (head.status_code, head.content) == (200, b"")
            for response in answers:
                assert response.headers["Content-Type"] == "image/webp"
                assert response.headers["Content-Length"] == str(len(answers[0].content))
                versioned = response.request.url.path.startswith("/storage/")
                assert response.headers["Cache-Control"] == (IMMUTABLE if versioned else HOURLY)
                assert response.headers["Accept-Ranges"] == "bytes"
                assert response.headers["ETag"].startswith('"') and response.headers["ETag"].endswith('"')
                assert parsedate_to_datetime(response.headers["Last-Modified"])
                assert "Vary" not in response.headers
                tags.add((len(response.content) and size, response.headers["ETag"]))
        assert len({tag for _, tag in tags}) == len({await s.variant(job["image_id"], size) for size in SIDES})
        head = await s.http.head(f"{IMAGES}/{uuid.uuid4()}/direct")
        assert head.status_code == 404


def conditions(tag: str, modified: str) -> list[tuple[dict[str, str], int]]:
    """Headers, and the status that they lead to."""
    moment = parsedate_to_datetime(modified)
    before, after = (format_datetime(moment + timedelta(seconds=n), usegmt=True) for n in (-1, 1))
    return [
        ({"If-None-Match": tag}, 304),
        ({"If-None-Match": f"W/{tag}"}, 304),
        ({"If-None-Match": f'"a", {tag} ,"b"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-None-Match": '"a*b"'}, 200),
        ({"If-None-Match": tag.strip('"')}, 200),
        ({"If-None-Match": ""}, 200),
        ({"If-Modified-Since": modified}, 304),
        ({"If-Modified-Since": after}, 304),
        ({"If-Modified-Since": before}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Modified-Since": "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"}, 200),
        ({"If-Modified-Since": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, 200),
        ({"If-None-Match": '"other"', "If-Modified-Since": modified}, 200),
        ({"If-None-Match": tag, "If-Modified-Since": before}, 304),
        ({"If-None-Match": tag, "Range": "bytes=0-0"}, 304),
    ]


async def test_conditional_requests(start: Starter, photo: bytes) -> None:
    async with start() as s:
        job = await s.completed(photo)
        whole = await s.http.get(direct(job))
        tag, modified = whole.headers["ETag"], whole.headers["Last-Modified"]
        wrong = []
        for headers, status in conditions(tag, modified):
            for method in ("GET", "HEAD"):
                response = await s.http.request(method, direct(job), headers=headers)
                if response.status_code != status:
                    wrong.append((method, headers, response.status_code))
                    continue
                assert response.headers["ETag"] == tag
                assert response.headers["Cache-Control"] == HOURLY
                assert response.content == (whole.content if (status, method) == (200, "GET") else b"")
                if status == 304:
                    assert not {"Content-Length", "Content-Type"} & {name.title() for name in response.headers}
        assert wrong == []
        kept = await s.http.get(direct(job, "thumbnail"), headers={"If-None-Match": tag})
        assert kept.status_code == 200


async def test_ranges(start: Starter, photo: bytes) -> None:
    async with start() as s:
        job = await s.completed(photo)
        whole = (await s.http.get(direct(job))).content
        size = len(whole)
        for header, wanted in {
            "bytes=0-0": slice(0, 1),
            "bytes=0-99": slice(0, 100),
            "bytes=100-299": slice(100, 300),
            "bytes=-1": slice(size - 1, size),
            "bytes=-500": slice(size - 500, size),
            "bytes=10-": slice(10, size),
            f"bytes={size - 1}-": slice(size - 1, size),
            f"bytes=5-{size + 1000}": slice(5, size),
            "bytes=1-999999999999999999": slice(1, size),
        }.items():
            response = await s.http.get(direct(job), headers={"Range": header})
            assert response.status_code == 206, header
            assert response.content == whole[wanted], header
            assert response.headers["Content-Range"] == f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
            assert response.headers["Content-Length"] == str(wanted.stop - wanted.start)
            assert response.headers["Content-Type"] == "image/webp"
            assert response.headers["ETag"]
        all_of_it = await s.http.get(direct(job), headers={"Range": f"bytes=-{size * 2}"})
        assert all_of_it.content == whole


async def test_range_beyond_the_end_is_refused(start: Starter, photo: bytes) -> None:
    async with start() as s:
        job = await s.completed(photo)
        size = len((await s.http.get(direct(job))).content)
        for header in (f"bytes={size}-", f"bytes={size}-{size + 5}", "bytes=999999999999-", "bytes=-0"):
            response = await s.http.get(direct(job), headers={"Range": header})
            problem(response, 416, "range_not_satisfiable")
            assert response.headers["Content-Range"] == f"bytes */{size}"


async def test_other_ranges_are_ignored(start: Starter, photo: bytes) -> None:
    async with start() as s:
        job = await s.completed(photo)
        whole = (await s.http.get(direct(job))).content
        for header in (
            "bytes=0-9,20-29",
            "bytes=0-9, -5",
            "items=0-9",
            "bytes=9-5",
            "bytes=-",
            "bytes=",
            "bytes=a-b",
            "0-9",
            "bytes=\u00b2-9",
            f"bytes={'9' * 30}-",
        ):
            response = await s.http.get(direct(job), headers=[(b"Range", header.encode("latin-1"))])
            assert (response.status_code, response.content) == (200, whole), header
            assert "Content-Range" not in response.headers


async def test_range_of_a_head_is_ignored(start: Starter, photo: bytes) -> None:
    """RFC 9110 section 14.2: range handling is defined for GET alone."""
    async with start() as s:
        job = await s.completed(photo)
        for header in ("bytes=0-9", "bytes=999999999-"):
            response = await s.http.head(direct(job), headers={"Range": header})
            assert response.status_code == 200
            assert response.headers["Content-Length"] == str(len(await s.variant(job["image_id"], "medium")))


async def test_if_range(start: Starter, photo: bytes) -> None:
    async with start() as s:
        job = await s.completed(photo)
        whole = await s.http.get(direct(job))
        tag, modified = whole.headers["ETag"], whole.headers["Last-Modified"]
        earlier = format_datetime(parsedate_to_datetime(modified) - timedelta(seconds=1), usegmt=True)
        for condition, applies in {
            tag: True,
            modified: True,
            '"other"': False,
            f"W/{tag}": False,
            earlier: False,
            "": False,
            "*": False,
        }.items():
            for asked in ("bytes=0-9", "bytes=999999999-"):
                response = await s.http.get(direct(job), headers={"Range": asked, "If-Range": condition})
                expected = (206 if asked == "bytes=0-9" else 416) if applies else 200
                assert response.status_code == expected, condition
                if expected == 200:
                    assert response.content == whole.content


async def hidden(s: Service, path: str) -> None:
    assert problem(await s.http.get(path), 404, "image_not_found") == "Image not found"
    assert (await s.http.head(path)).status_code == 404


def paths_that_are_not_served(image_id: str, waiting: str) -> tuple[str, ...]:
    """Beside the one that is: `waiting` is an upload without variants."""
    key = f"processed/medium/{image_id}_medium.webp"
    return (
        waiting,
        f"staging/{waiting}",
        f"../staging/{waiting}",
        f"team/a/../../../staging/{waiting}",
        "../imgsvc.db",
        "../jwt_secret",
        key,
        f"team/{key}",
        f"team/b/{key}",
        f"photos/{key}",
        f"TEAM/a/{key}",
        f"team/a//{key}",
        f"/team/a/{key}",
        f"team/a/./{key}",
        f"x/../team/a/{key}",
        f"team/a/{key}/",
        f"team/a/{key}\0",
        f"team/a/{key.upper()}",
        f"team/a/{key.removesuffix('.webp')}",
        f"team/a/processed/medium/.{image_id}_medium.webp.partial",
        f"team/a/processed/thumbnail/{image_id}_medium.webp",
        f"team/a/processed/medium/{image_id}_thumbnail.webp",
        f"team/a/processed/tiny/{image_id}_tiny.webp",
        f"team/a/{image_id}_medium.webp",
        "team/a/",
        "",
    )


async def test_storage_serves_only_what_the_table_lists(start: Starter, photo: bytes) -> None:
    async with start() as s:
        job = await s.completed(photo, bucket="team/a")
        s.state.jobs.queue.hold()
        waiting = (await s.upload(photo)).json()["job_id"]
        image_id, key = job["image_id"], f"processed/medium/{job['image_id']}_medium.webp"
        assert (await s.http.get(f"/storage/team/a/{key}")).status_code == 200
        (s.settings.storage.path / "team/a" / f"processed/medium/{uuid.uuid4()}_medium.webp").write_bytes(b"stray")
        stray = [path for path in s.stored() if image_id not in path]
        assert waiting in s.staged()
        assert stray
        for path in (*stray, *paths_that_are_not_served(image_id, waiting)):
            encoded = "".join(f"%{byte:02x}" for byte in path.encode())
            await hidden(s, f"/storage/{encoded}")
        await hidden(s, "/storage/" + "%252e%252e%252f" * 3 + "jwt_secret")
        await hidden(s, f"/storage/team%5Ca/{key}")
        await hidden(s, "/storage/" + "a/" * 5000)
        await hidden(s, "/storage/%ff%fe")


async def test_every_url_begins_with_the_public_one(start: Starter) -> None:
    public = "https://cdn.example/img"
    async with start(service={"public_url": f"{public}/"}) as s:
        accepted = await s.upload(TINY)
        status_url = accepted.json()["status_url"]
        assert status_url == accepted.headers["Location"] == f"{public}{IMAGES}/jobs/{accepted.json()['job_id']}"
        job = await s.ended(accepted)
        urls = (await s.http.get(status_url.removeprefix(public) + "/result")).json()["urls"]
        urls["info"] = (await s.http.get(f"{IMAGES}/{job['image_id']}")).json()["url"]
        assert urls["info"] == urls["medium"]
        for url in urls.values():
            assert url.startswith(f"{public}/storage/photos/processed/")
            assert (await s.http.get(url.removeprefix(public))).status_code == 200
        refused = await s.http.get(f"{IMAGES}/x")
        assert refused.json()["type"] == f"{public}/errors/image_not_found"


@pytest.mark.parametrize("sizes", [{"tiny": 32, "huge_2x": 500}, {"medium": 40}])
async def test_sizes_are_those_of_the_settings(start: Starter, sizes: dict[str, int]) -> None:
    async with start(images={"sizes": sizes}) as s:
        job = await s.completed(make.jpeg(640, 480))
        assert job["ready"] == sorted(sizes, key=sizes.__getitem__, reverse=True)
        for size, side in sizes.items():
            info = (await s.http.get(f"{IMAGES}/{job['image_id']}", params={"size": size})).json()
            assert info["metadata"]["dimensions"]["width"] == side
            assert len(await s.variant(job["image_id"], size)) == info["metadata"]["dimensions"]["size_bytes"]
        for size in SIDES.keys() - sizes.keys():
            response = await s.http.get(f"{IMAGES}/{job['image_id']}", params={"size": size})
            assert problem(response, 404, "size_not_available") == f"Size '{size}' not available"
        default = await s.http.get(f"{IMAGES}/{job['image_id']}")
        assert default.status_code == (200 if "medium" in sizes else 404)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ({"If-Match": '"nope"'}, 412),
        ({"If-Match": "*"}, 200),
        ({"If-Unmodified-Since": "Mon, 01 Jan 1990 00:00:00 GMT"}, 412),
        ({"If-Unmodified-Since": "Mon, 01 Jan 2199 00:00:00 GMT"}, 200),
        ({"If-Match": "*", "If-Unmodified-Since": "Mon, 01 Jan 1990 00:00:00 GMT"}, 200),
    ],
)
async def test_preconditions(shared: Service, photo: bytes, condition: dict[str, str], status: int) -> None:
    job = await shared.completed(photo)
    url = f"/api/v1/images/{job['image_id']}/direct?size=thumbnail"
    assert (await shared.http.get(url, headers=condition)).status_code == status
    tag = (await shared.http.get(url)).headers["ETag"]
    assert (await shared.http.get(url, headers={"If-Match": f'"x", {tag}'})).status_code == 200
