"""Lists of images over the wire: whose, which, page by page, and who may see them."""

import hashlib
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from fixtures import make
from imgsvc.access.cursors import CursorInvalid, Cursors
from tests.conftest import Service, Starter

IMAGES, OF_OPERATOR = "/api/v1/images", "/api/v1/operator/images"
TINY = make.tiny()
sizes: Iterator[int] = count(40)


def different() -> bytes:
    """A photo that no other is the same as."""
    return make.jpeg(next(sizes), 30)


async def listed(s: Service, headers: dict[str, str], path: str = IMAGES, **query: Any) -> dict[str, Any]:
    response = await s.http.get(path, params=query, headers=headers)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def ids(s: Service, headers: dict[str, str], path: str = IMAGES, **query: Any) -> list[str]:
    return [one["image_id"] for one in (await listed(s, headers, path, **query))["images"]]


async def refused(s: Service, headers: dict[str, str], path: str = IMAGES, **query: Any) -> tuple[int, str]:
    response = await s.http.get(path, params=query, headers=headers)
    return response.status_code, response.json()["code"]


@pytest.mark.parametrize("private", [False, True])
async def test_what_is_listed(start: Starter, private: bool) -> None:
    async with start(storage={"signed_urls": private}, service={"public_url": "http://localhost/photos"}) as s:
        job = await s.completed(TINY, bucket="team/a")
        body = await listed(s, s.bearer())
        (one,) = body["images"]
        assert body["next"] is None
        assert {name: one[name] for name in ("image_id", "job_id", "status", "created_at", "ready")} == {
            name: job[name] for name in ("image_id", "job_id", "status", "created_at", "ready")
        }
        assert (one["bucket"], one["original_filename"], one["expires_at"]) == ("team/a", "photo.jpg", None)
        assert len(one["thumbhash"]) >= 24 and (private or one["thumbhash"] == job["thumbhash"])
        assert one["dominant_color"].startswith("#") and one["dimensions"] == {"width": 80, "height": 60}
        stored = 0
        for size, url in one["urls"].items():
            assert url.startswith(f"http://localhost/photos{IMAGES}/{job['image_id']}/direct?size={size}")
            assert ("signature=" in url) == private
            fetched = await s.http.get(url.removeprefix("http://localhost/photos"))
            assert fetched.status_code == 200
            stored += len(fetched.content)
        assert one["size_bytes"] == stored and list(one["urls"]) == one["ready"] == job["ready"]


async def test_failed_and_deleted_images(start: Starter) -> None:
    async with start() as s:
        kept, gone = await s.completed(different()), await s.completed(different())
        failed = await s.ended(await s.upload(make.jpeg(640, 480)[:6000]))
        assert failed["status"] == "failed"
        await s.http.delete(f"{IMAGES}/{gone['image_id']}", headers=s.bearer())
        assert await ids(s, s.bearer()) == [failed["image_id"], kept["image_id"]]
        (one,) = (await listed(s, s.bearer(), status="failed"))["images"]
        assert (one["image_id"], one["urls"], one["ready"], one["size_bytes"]) == (failed["image_id"], {}, [], 0)


async def test_filters(start: Starter) -> None:
    async with start() as s:
        data = [different() for _ in range(3)]
        names = ("Straße 1.jpg", "STRASSE 2.jpg", "meer.jpg")
        jobs = []
        for one, name, bucket in zip(data, names, ("a", "b", "a"), strict=True):
            form: dict[str, Any] = {"files": {"file": (name, one)}, "data": {"bucket": bucket}}
            jobs.append(await s.ended(await s.http.post(f"{IMAGES}/upload", headers=s.bearer(), **form)))
        first, second, third = (job["image_id"] for job in jobs)
        moment = jobs[1]["created_at"]
        for query, expected in (
            ({}, [third, second, first]),
            ({"bucket": "a"}, [third, first]),
            ({"q": "strasse"}, [second, first]),
            ({"q": "STRAß"}, [second, first]),
            ({"q": "strasse", "bucket": "a"}, [first]),
            ({"q": "mee%"}, []),
            ({"sha256": hashlib.sha256(data[1]).hexdigest().upper()}, [second]),
            ({"status": "completed", "bucket": "b"}, [second]),
            ({"status": "pending"}, []),
            ({"created_after": moment}, [third, second]),
            ({"created_before": moment}, [first]),
            ({"created_after": moment.replace("+", " ")}, [third, second]),
        ):
            assert await ids(s, s.bearer(), **query) == expected, query
        for query in (
            {"limit": 0},
            {"limit": 201},
            {"status": "gone"},
            {"created_after": "2026-02-30T00:00:00Z"},
            {"created_after": "yesterday"},
            {"sha256": "0"},
            {"q": ""},
            {"bucket": "../x"},
            {"after": "x"},
            {"scope": "all"},
            {"buckets": "a"},
        ):
            assert await refused(s, s.bearer(), **query) == (422, "validation_error"), query


async def test_pages_stay_while_images_come_and_go(start: Starter) -> None:
    async with start() as s:
        jobs = [(await s.completed(different()))["image_id"] for _ in range(5)][::-1]
        first = await listed(s, s.bearer(), limit=2)
        await s.completed(different())
        await s.http.delete(f"{IMAGES}/{jobs[1]}", headers=s.bearer())  # the one that the cursor names
        second = await listed(s, s.bearer(), limit=2, after=first["next"])
        third = await listed(s, s.bearer(), limit=2, after=second["next"])
        assert [one["image_id"] for page in (first, second, third) for one in page["images"]] == jobs
        assert third["next"] is None
        cursor = first["next"]
        assert jobs[1] not in cursor
        for headers, query in (
            (s.bearer("bob"), {}),
            (s.bearer(), {"bucket": "photos"}),
            (s.bearer(org_id="elsewhere"), {}),
        ):
            assert await refused(s, headers, after=cursor, **query) == (422, "validation_error")
        assert await ids(s, s.bearer(), limit=50, after=cursor) == jobs[2:]


async def test_who_may_list_what(start: Starter) -> None:
    async with start(auth={"permissions": "claims"}) as s:
        own = await s.ended(await s.http.post(**upload(s, "alice")))
        other = await s.ended(await s.http.post(**upload(s, "bob")))
        elsewhere = await s.ended(await s.http.post(**upload(s, "carol", org_id="elsewhere")))
        reader, admin = s.bearer(permissions=["image:read"]), s.bearer(permissions=["image:read", "image:admin"])
        assert await ids(s, reader) == [own["image_id"]]
        assert await ids(s, admin, scope="org") == [other["image_id"], own["image_id"]]
        assert await refused(s, reader, scope="org") == (403, "permission_denied")
        assert await refused(s, s.bearer(permissions=["image:upload"])) == (403, "permission_denied")
        assert await refused(s, s.bearer(permissions=["image:admin"])) == (403, "permission_denied")
        assert await refused(s, {}) == (401, "token_missing")
        assert await s.sql("SELECT count(*) FROM image_upload_events WHERE event_type = 'list_denied'") == [(1,)]
        everything = [elsewhere["image_id"], other["image_id"], own["image_id"]]
        body = await listed(s, s.operator, OF_OPERATOR)
        assert [one["image_id"] for one in body["images"]] == everything
        assert [(one["org_id"], one["user_id"]) for one in body["images"]][:2] == [
            ("elsewhere", "carol"),
            ("default-org", "bob"),
        ]
        assert await ids(s, s.operator, OF_OPERATOR, org="elsewhere") == everything[:1]
        assert await ids(s, s.operator, OF_OPERATOR, user="bob") == everything[1:2]
        assert await ids(s, s.operator, OF_OPERATOR, user="bob", org="elsewhere") == []
        page = await listed(s, s.operator, OF_OPERATOR, limit=1)
        assert await ids(s, s.operator, OF_OPERATOR, after=page["next"]) == everything[1:]
        assert await refused(s, admin, scope="org", after=page["next"]) == (422, "validation_error")
        assert await refused(s, s.bearer(), OF_OPERATOR) == (401, "operator_refused")


def upload(s: Service, user: str, **more: Any) -> dict[str, Any]:
    headers = s.bearer(user, permissions=["image:upload"], **more)
    return {
        "url": f"{IMAGES}/upload",
        "data": {"bucket": "photos"},
        "files": {"file": ("a.jpg", different())},
        "headers": headers,
    }


async def test_without_checked_permissions_a_list_is_ones_own(start: Starter) -> None:
    async with start(operator={"public": True}) as s:
        await s.completed(TINY, user="bob")
        assert await ids(s, s.bearer()) == []
        assert await refused(s, s.bearer(permissions=["image:admin"]), scope="org") == (403, "permission_denied")
        assert await refused(s, {}, OF_OPERATOR) == (401, "operator_required")  # it names people


def test_cursors() -> None:
    cursors, place = Cursors("k" * 32), ("2026-03-01T12:00:00.000001+00:00", "9a41d1de-52c3-4c53-8bb5-1f0a7f6f0f9e")
    cursor = cursors.of(*place, "one")
    assert cursors.position(cursor, "one") == place
    changed = ("A" if cursor[20] != "A" else "B").join((cursor[:20], cursor[21:]))
    for sent, context in ((cursor, "two"), (changed, "one"), (cursor[:-4], "one"), ("", "one"), ("ä", "one")):
        with pytest.raises(CursorInvalid):
            cursors.position(sent, context)
    with pytest.raises(CursorInvalid):
        Cursors("j" * 32).position(cursor, "one")


async def test_several_images_are_deleted_at_once(start: Starter) -> None:
    path = f"{IMAGES}/delete"
    async with start(auth={"permissions": "claims"}) as s:
        own = await s.ended(await s.http.post(**upload(s, "alice")))
        other = await s.ended(await s.http.post(**upload(s, "bob")))
        elsewhere = await s.ended(await s.http.post(**upload(s, "alice", org_id="elsewhere")))
        asked = [own["image_id"].upper(), other["image_id"], elsewhere["image_id"], own["image_id"], "x"]
        headers = s.bearer(permissions=["image:delete"])
        response = await s.http.post(path, json={"image_ids": asked}, headers=headers)
        assert response.status_code == 200
        codes = [None, "permission_denied", "image_not_found", "image_not_found", "image_not_found"]
        assert [one["image_id"] for one in response.json()["images"]] == asked
        assert [one["code"] for one in response.json()["images"]] == codes
        assert [one["deleted"] for one in response.json()["images"]] == [code is None for code in codes]
        assert response.json()["images"][0]["files_removed"] == 4
        wrongs: list[dict[str, Any]] = [{}, {"image_ids": []}, {"image_ids": ["x"] * 101}, {"image_ids": [1]}]
        for wrong in [*wrongs, {"ids": ["x"]}]:
            assert (await s.http.post(path, json=wrong, headers=headers)).status_code == 422
        full = await s.http.post(path, json={"image_ids": [own["image_id"]] * 100}, headers=headers)
        assert len(full.json()["images"]) == 100
        assert (await s.http.post(path, json={"image_ids": ["x"]})).status_code == 401
        assert (await s.http.get(path)).status_code == 405


async def test_operator_shows_and_deletes_images_of_anybody(start: Starter) -> None:
    async with start() as s:
        first, second = [(await s.completed(different(), user=user))["image_id"] for user in ("alice", "bob")]
        (listed_one,) = (await listed(s, s.operator, OF_OPERATOR, user="alice"))["images"]
        shown = await s.http.get(f"{OF_OPERATOR}/{first}", headers=s.operator)
        assert listed_one["user_id"] == "alice" and listed_one.items() <= shown.json().items()
        sizes = {name: made["size_bytes"] for name, made in shown.json()["variants"].items()}
        assert list(sizes) == listed_one["ready"] and sum(sizes.values()) == listed_one["size_bytes"]
        assert {name: shown.json()[name] for name in ("client_metadata", "focal", "rendering", "mime_type")} == {
            "client_metadata": {},
            "focal": None,
            "rendering": [],
            "mime_type": "image/jpeg",
        }
        assert (await s.http.get(f"{OF_OPERATOR}/{first}", headers=s.bearer())).status_code == 401
        assert (await s.http.delete(f"{OF_OPERATOR}/{first}", headers=s.bearer())).status_code == 401
        gone = await s.http.delete(f"{OF_OPERATOR}/{first}", headers=s.operator)
        assert gone.json() == {"image_id": first, "deleted": True, "files_removed": 4}
        body: dict[str, Any] = {"image_ids": [first, second]}
        many = await s.http.post(f"{OF_OPERATOR}/delete", json=body, headers=s.operator)
        assert [one["code"] for one in many.json()["images"]] == ["image_not_found", None]
        for path in (first, second, "x"):
            assert (await s.http.get(f"{OF_OPERATOR}/{path}", headers=s.operator)).json()["code"] == "image_not_found"
        assert s.stored() == []
