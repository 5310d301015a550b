"""The same photo twice on S3: the store copies the variants, and whatever goes wrong ends in a rendering."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures import make
from imgsvc import testing
from imgsvc.storage.keys import variant_key
from tests.conftest import Service
from tests.support.s3 import S3Server
from tests.support.s3_proxy import proxy

SIZES = ("thumbnail", "medium", "large", "original")
PHOTO = make.jpeg(400, 300)


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.bucket()


@asynccontextmanager
async def service(folder: Path, s3: S3Server, bucket: str, **more: Any) -> AsyncIterator[Service]:
    settings = testing.settings_in(folder, storage={"backend": "s3"}, s3={**s3.settings(bucket), **more})
    async with testing.serving(settings) as (app, http):
        del http.headers["Authorization"]
        yield Service(app, settings, http)


def keys(bucket: str, image_id: str) -> list[str]:
    return [f"{bucket}/{variant_key(size, image_id)}" for size in SIZES]


async def assert_right(s: Service, image_id: str) -> None:
    """What clients get of the store is what the row says of each variant."""
    job = await s.state.jobs.table.job_of_image(image_id)
    assert job is not None and set(job.ready) == set(SIZES)
    async with httpx.AsyncClient() as plain:
        for size in SIZES:
            referred = await s.http.get(f"/api/v1/images/{image_id}/direct?size={size}")
            assert referred.status_code == 307
            answer = await plain.get(referred.headers["Location"])
            made = job.measured["variants"][size]
            assert hashlib.sha256(answer.content).hexdigest() == made["sha256"]
            assert answer.headers["Content-Type"] == "image/webp"
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"


async def outcome(s: Service) -> dict[str, int]:
    """{status: jobs} of the metric."""
    text = (await s.http.get("/metrics", headers=s.operator)).text
    lines = [line for line in text.splitlines() if line.startswith("image_reuse_total{")]
    return {line.split('"')[1]: int(float(line.split()[-1])) for line in lines if not line.endswith(" 0.0")}


async def test_the_store_copies_the_variants(tmp_path: Path, s3: S3Server, bucket: str) -> None:
    async with service(tmp_path, s3, bucket) as s:
        first = (await s.completed(PHOTO))["image_id"]
        second = await s.completed(PHOTO, bucket="other/place")
        assert second["attempts"] == 0 and await outcome(s) == {"reused": 1}
        other = keys("other/place", second["image_id"])
        assert s3.keys(bucket) == sorted([*keys("photos", first), *other])
        await assert_right(s, second["image_id"])
        assert (await s.http.delete(f"/api/v1/images/{first}", headers=s.bearer())).json()["files_removed"] == 4
        assert s3.keys(bucket) == sorted(other)
        await assert_right(s, second["image_id"])


@pytest.mark.parametrize("damage", ["gone", "differs"])
async def test_damaged_objects_of_the_first(tmp_path: Path, s3: S3Server, bucket: str, damage: str) -> None:
    async with service(tmp_path, s3, bucket) as s:
        key = keys("photos", (await s.completed(PHOTO))["image_id"])[2]
        if damage == "gone":
            s3.client.delete_object(Bucket=bucket, Key=key)
        else:
            size = s3.client.head_object(Bucket=bucket, Key=key)["ContentLength"]
            s3.client.put_object(Bucket=bucket, Key=key, Body=bytes(size))
        second = await s.completed(PHOTO)
        assert second["attempts"] == 0 and await outcome(s) == {damage: 1}
        await assert_right(s, second["image_id"])


async def test_copy_that_the_store_refuses_is_no_attempt(tmp_path: Path, s3: S3Server, bucket: str) -> None:
    async with proxy(s3.port) as between, service(tmp_path, s3, bucket, endpoint_url=between.url, attempts=1) as s:
        await s.completed(PHOTO)
        between.fail("501")
        second = await s.completed(PHOTO)
        assert second["attempts"] == 0 and await outcome(s) == {"error": 1}
        await assert_right(s, second["image_id"])
