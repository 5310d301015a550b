"""PATCH of an image: merge patch, who may, when, and that reads show it at once, from memory too."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from fixtures import make
from imgsvc.jobs.table.model import as_text, now
from imgsvc.jobs.table.patches import merged
from tests.conftest import Service, Starter

IMAGES = "/api/v1/images"
TINY = make.tiny()
MERGE_PATCH = "application/merge-patch+json"


async def patch(s: Service, image_id: str, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    sent = s.bearer() if headers is None else headers
    return await s.http.patch(f"{IMAGES}/{image_id}", json=body, headers={"Content-Type": MERGE_PATCH, **sent})


# RFC 7396, appendix A
CASES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "change", "expected"), CASES)
def test_merge(target: Any, change: Any, expected: Any) -> None:
    assert merged(target, change) == expected


async def test_change_is_seen_at_once(start: Starter) -> None:
    async with start() as s:
        job = await s.completed(TINY, metadata='{"title": "x", "place": {"city": "Kiel", "street": "y"}}')
        everything, result = f"{IMAGES}/{job['image_id']}/all", f"{IMAGES}/jobs/{job['job_id']}/result"
        for path in (everything, result):
            assert (await s.http.get(path)).json()["metadata"]["title"] == "x"  # and from now on from memory
        change = {"client_metadata": {"title": "z", "place": {"street": None}}}
        response = await patch(s, job["image_id"], change)
        assert response.status_code == 200, response.text
        expected = {"title": "z", "place": {"city": "Kiel"}}
        assert response.json()["client_metadata"] == expected and response.json()["expires_at"] is None
        for path in (everything, result):
            body = (await s.http.get(path)).json()
            assert body["client_metadata"] == expected and body["metadata"]["title"] == "z"
        assert (await s.job(job["job_id"]))["status"] == "completed"
        moment = as_text((now() + timedelta(days=1)).replace(microsecond=0))
        assert (await patch(s, job["image_id"], {"expires_at": moment})).json()["expires_at"] == moment
        urls = (await s.http.get(everything)).json()["urls"]
        assert "immutable" not in (await s.http.get(urls["medium"])).headers["Cache-Control"]
        assert (await patch(s, job["image_id"], {})).json()["expires_at"] == moment
        cleared = await patch(s, job["image_id"], {"expires_at": None, "client_metadata": None})
        assert (cleared.json()["expires_at"], cleared.json()["client_metadata"]) == (None, {})
        events = await s.sql("SELECT metadata FROM image_upload_events WHERE event_type = 'updated' ORDER BY id")
        assert len(events) == 4 and '"members": ["client_metadata"]' in events[0][0] and "Kiel" not in str(events)


async def test_changes_at_once_are_all_made(start: Starter) -> None:
    async with start() as s:
        job = await s.completed(TINY)
        bodies = [{"client_metadata": {f"n{number}": number}} for number in range(20)]
        await asyncio.gather(*(patch(s, job["image_id"], body) for body in bodies))
        found = (await s.http.get(f"{IMAGES}/{job['image_id']}/all")).json()["client_metadata"]
        assert found == {f"n{number}": number for number in range(20)}


async def test_refusals(start: Starter) -> None:
    async with start() as s:
        job = await s.completed(TINY, metadata='{"a": "%s"}' % ("x" * 10_000))
        past = as_text(now() - timedelta(seconds=1))
        deep: Any = {}
        for _ in range(70):
            deep = {"a": deep}
        bodies: tuple[Any, ...] = (
            {"client_metadata": []},
            {"client_metadata": "x"},
            {"client_metadata": {"b": "y" * 7_000}},  # together they are too large
            {"client_metadata": deep},
            {"expires_at": past},
            {"expires_at": "x"},
            {"expires_at": 5},
            {"expires_in": 60},
            {"title": "x"},
            [],
        )
        for body in bodies:
            response = await patch(s, job["image_id"], body)
            assert (response.status_code, response.json()["code"]) == (422, "validation_error"), body
        form = await s.http.patch(f"{IMAGES}/{job['image_id']}", content=b"a=1", headers=s.bearer())
        assert form.status_code == 422
        assert len((await s.http.get(f"{IMAGES}/{job['image_id']}/all")).json()["client_metadata"]["a"]) == 10_000
        s.state.jobs.queue.hold()
        waiting = (await s.upload(TINY)).json()
        response = await patch(s, waiting["image_id"], {"expires_at": None})
        assert (response.status_code, response.json()["code"]) == (409, "not_completed")
        for image_id in ("x", "00000000-0000-4000-8000-000000000000"):
            assert (await patch(s, image_id, {})).json()["code"] == "image_not_found"


@pytest.mark.parametrize("mode", ["none", "claims"])
async def test_who_may(start: Starter, mode: str) -> None:
    async with start(auth={"permissions": mode}) as s:
        accepted = await s.http.post(
            f"{IMAGES}/upload?bucket=b",
            content=TINY,
            headers=s.bearer(permissions=["image:upload"]) | {"Content-Type": "image/jpeg"},
        )
        image_id = (await s.ended(accepted))["image_id"]
        checked = mode == "claims"
        for who, permissions, org, expected in (
            ("alice", ["image:update"], "default-org", 200),
            ("alice", ["image:read", "image:delete"], "default-org", 403 if checked else 200),
            ("bob", ["image:update"], "default-org", 403),
            ("bob", ["image:admin"], "default-org", 403),
            ("bob", ["image:update", "image:admin"], "default-org", 200 if checked else 403),
            ("alice", ["image:update", "image:admin"], "elsewhere", 404),
        ):
            headers = s.bearer(who, permissions=permissions, org_id=org)
            assert (await patch(s, image_id, {}, headers)).status_code == expected, (who, permissions)
        assert (await patch(s, image_id, {}, {})).status_code == 401
        operator = f"/api/v1/operator/images/{image_id}"
        change, merge = {"client_metadata": {"a": 1}}, {"Content-Type": MERGE_PATCH}
        assert (await s.http.patch(operator, json=change, headers=s.bearer() | merge)).status_code == 401
        changed = await s.http.patch(operator, json=change, headers=s.operator | merge)
        assert changed.status_code == 200 and changed.json()["user_id"] == "alice"
