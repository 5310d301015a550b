"""What users have stored, and quotas in bytes: exact after each change, and enforced where uploads are accepted."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from fixtures import make
from tests.conftest import WAIT_SECONDS, Service, Starter
from tests.support.older_database import back_to_schema
from tests.support.speed import within

IMAGES, USAGE = "/api/v1/images", "/api/v1/usage"
sizes: Iterator[int] = count(100)


def different() -> bytes:
    return make.jpeg(next(sizes), 80)


async def usage(s: Service, headers: dict[str, str]) -> dict[str, Any]:
    response = await s.http.get(USAGE, headers=headers)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def on_disk(s: Service) -> dict[tuple[str, str], int]:
    """{(organisation, user): bytes of the files of their images}."""
    owners = {row[0]: row[1:] for row in await s.sql("SELECT image_id, org_id, user_id FROM processing_jobs")}
    found: Counter[tuple[str, str]] = Counter()
    for name in s.stored():
        path = Path(name)
        found[owners[path.name.partition("_")[0]]] += (s.settings.storage.path / path).stat().st_size
    return dict(found)


async def kept(s: Service) -> dict[tuple[str, str], int]:
    """{(organisation, user): bytes} as the table of usage has them."""
    rows = await s.sql("SELECT org_id, user_id, bytes, reserved FROM usage WHERE user_id <> ''")
    assert all(reserved == 0 for *_, reserved in rows)
    return {(org, user): taken for org, user, taken, _ in rows if taken}


async def test_bytes_are_those_of_the_files(start: Starter) -> None:
    async with start() as s:
        jobs = [await s.completed(different(), user=user) for user in ("alice", "alice", "bob")]
        again = make.jpeg(90, 80)
        twins = [await s.completed(again, user="bob") for _ in range(2)]  # linked, and each counts in full
        failed = await s.ended(await s.upload(make.jpeg(640, 480)[:6000]))
        assert failed["status"] == "failed"
        assert await kept(s) == await on_disk(s) != {}
        await s.http.delete(f"{IMAGES}/{jobs[0]['image_id']}", headers=s.bearer())
        await s.http.delete(f"{IMAGES}/{twins[0]['image_id']}", headers=s.bearer("bob"))
        await s.state.jobs.housekeeping.sweep()
        assert await kept(s) == await on_disk(s)
        body = await usage(s, s.bearer())
        stored = (await on_disk(s))["default-org", "alice"]
        assert (body["user"]["images"], body["user"]["bytes"]) == (1, stored)
        assert body["user"]["uploads_left"] == 1_000_000 - 3 and body["user"]["resets_at"] > jobs[0]["created_at"]
        assert body["limits"] == {"bytes_per_user": 0, "bytes_per_org": 0}
        assert "org" not in body and "counting" not in body
        for job, user in ((jobs[1], "alice"), (failed, "alice"), (jobs[2], "bob"), (twins[1], "bob")):
            await s.http.delete(f"{IMAGES}/{job['image_id']}", headers=s.bearer(user))
        assert await s.sql("SELECT * FROM usage") == []  # users without images are not named


async def test_replaced_crops_count_until_they_are_gone(start: Starter) -> None:
    """Of an image that goes on, and of one that is deleted while they are there."""
    crop = {"width": 40, "height": 40, "fit": "cover"}
    async with start(images={"sizes": {"thumbnail": crop, "original": 4096}}) as s:
        image_id = (await s.completed(make.jpeg(300, 100)))["image_id"]
        headers = s.bearer() | {"Content-Type": "application/merge-patch+json"}
        for left in (0.0, 1.0):
            body = {"focal": {"x": left, "y": 0.5}}
            assert (await s.http.patch(f"{IMAGES}/{image_id}", json=body, headers=headers)).status_code == 200
            with within(WAIT_SECONDS):
                while await s.sql("SELECT 1 FROM renders"):
                    await anyio.sleep(0.02)
            assert len(s.stored()) == 3 and await kept(s) == await on_disk(s)
            if left == 0.0:
                await s.sql("UPDATE retired_keys SET remove_at = '2020-01-01' WHERE remove_at IS NOT NULL")
                await s.state.jobs.housekeeping.sweep()
                assert len(s.stored()) == 2 and await kept(s) == await on_disk(s)
        assert (await s.http.delete(f"{IMAGES}/{image_id}", headers=s.bearer())).status_code == 200
        assert s.stored() == [] and await kept(s) == {}


async def test_retried_upload_reserves_its_bytes_again(start: Starter) -> None:
    async with start(jobs={"max_attempts": 1}) as s:
        (s.settings.storage.path / "photos").write_bytes(b"")  # the bucket is a file
        data = different()
        failed = await s.ended(await s.upload(data))
        assert await s.sql("SELECT * FROM usage") == []
        (s.settings.storage.path / "photos").unlink()
        s.state.jobs.queue.hold()
        await s.state.jobs.housekeeping.sweep()
        retried = await s.http.post(f"/api/v1/operator/jobs/{failed['job_id']}/retry", headers=s.operator)
        assert retried.status_code == 202, retried.text
        assert await s.sql("SELECT reserved FROM usage WHERE user_id = 'alice'") == [(len(data),)]


async def test_rows_of_an_older_version_are_counted(start: Starter) -> None:
    """Meanwhile quotas refuse nothing, and the answer says so."""
    quota = {"bytes_per_user": 1}
    async with start() as s:
        for user in ("alice", "bob"):
            await s.completed(different(), user=user)
        expected = await kept(s)
    with closing(sqlite3.connect(s.settings.database.path)) as db:
        back_to_schema(db, 6)
    async with start(quota=quota) as s:
        early = await usage(s, s.bearer())
        assert early["counting"] is True and early["user"]["bytes"] == 0
        assert (await s.upload(different())).status_code == 202
        with anyio.fail_after(20):
            while "counting" in await usage(s, s.bearer()):
                await anyio.sleep(0.05)
        counted = await kept(s) if not s.staged() else {}
        for owner, taken in counted.items():
            assert taken >= expected[owner]
        refused = await s.upload(different(), user="bob")
        assert refused.status_code == 507
        assert await kept(s) == await on_disk(s)


async def test_quota_refuses_what_would_exceed_it(start: Starter) -> None:
    async with start(quota={"bytes_per_user": 20_000, "bytes_per_org": 30_000}) as s:
        data = different()
        await s.completed(data)
        used = (await usage(s, s.bearer()))["user"]["bytes"]
        s.state.jobs.queue.hold()
        filler = make.jpeg(91, 81)
        while (response := await s.upload(filler)).status_code == 202:
            pass
        problem = response.json()
        reserved = (await s.sql("SELECT reserved FROM usage WHERE user_id = 'alice'"))[0][0]
        assert (response.status_code, problem["code"]) == (507, "quota_exceeded")
        assert (problem["limit"], problem["used"], problem["needed"]) == (20_000, used + reserved, len(filler))
        assert problem["used"] + len(filler) > 20_000 >= problem["used"]
        rows = await s.sql("SELECT count(*) FROM processing_jobs WHERE user_id = 'alice'")
        assert len(s.staged()) == rows[0][0] - 1  # the refused one left nothing
        assert await s.sql("SELECT count(*) FROM image_upload_events WHERE event_type = 'quota_exceeded'") == [(1,)]
        metrics = (await s.http.get("/metrics", headers=s.operator)).text
        assert 'quota_rejections_total{whose="user"} 1.0' in metrics
        while (response := await s.upload(filler, user="bob")).status_code == 202:
            pass
        assert response.json()["limit"] == 30_000 and "organisation" in response.json()["detail"]


async def test_quota_refuses_by_the_announced_length(start: Starter) -> None:
    """Before the first bytes are looked at, which would be refused for what they are."""
    async with start(quota={"bytes_per_user": 1000}) as s:
        headers = s.bearer() | {"Content-Type": "image/jpeg"}
        response = await s.http.post(f"{IMAGES}/upload?bucket=b", content=b"x" * 1001, headers=headers)
        assert (response.status_code, response.json()["needed"]) == (507, 1001)


async def test_uploads_at_once_do_not_share_the_last_bytes(start: Starter) -> None:
    data = [make.jpeg(64, 64 + number) for number in range(8)]
    async with start(quota={"bytes_per_user": 3 * max(map(len, data)) + 10}) as s:
        s.state.jobs.queue.hold()
        answers = await asyncio.gather(*(s.upload(one) for one in data))
        assert Counter(answer.status_code for answer in answers)[202] == 3


@pytest.mark.parametrize(
    ("permissions", "expected"), [(["image:read"], 200), (["image:read", "image:admin"], 200), (["image:upload"], 403)]
)
async def test_who_sees_what(start: Starter, permissions: list[str], expected: int) -> None:
    async with start(auth={"permissions": "claims"}) as s:
        upload = await s.http.post(
            f"{IMAGES}/upload?bucket=b",
            content=different(),
            headers=s.bearer("bob", permissions=["image:upload"]) | {"Content-Type": "image/jpeg"},
        )
        await s.ended(upload)
        response: httpx.Response = await s.http.get(USAGE, headers=s.bearer(permissions=permissions))
        assert response.status_code == expected
        if "image:admin" in permissions:
            assert response.json()["org"]["images"] == 1 and response.json()["user"]["images"] == 0
            elsewhere = s.bearer(permissions=permissions, org_id="elsewhere")
            assert (await usage(s, elsewhere))["org"] == {"images": 0, "bytes": 0}
