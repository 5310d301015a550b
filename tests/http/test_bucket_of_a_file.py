"""A bucket that is named like an image's file can't be stored beside it: the upload is refused, and others are not."""

import anyio
import pytest

from fixtures import make
from tests.conftest import WAIT_SECONDS, Service, Starter, shared_service
from tests.support.speed import within

TINY = make.tiny()
ID = "11111111-1111-4111-8111-111111111111"
shared = shared_service()


async def test_bucket_through_the_file_of_an_image_is_refused(start: Starter) -> None:
    async with start() as s:
        image_id = (await s.completed(TINY, bucket="lab"))["image_id"]
        before = await s.variant(image_id, "thumbnail")
        there = f"lab/processed/thumbnail/{image_id}_thumbnail.webp"
        for bucket in (there, f"{there}/more", there.upper().replace("LAB", "lab")):
            refused = await s.upload(TINY, bucket=bucket)
            assert refused.status_code == 422, bucket
            (why,) = refused.json()["details"]
            assert (why["loc"], why["type"]) == (["body", "bucket"], "bucket_invalid")
            assert "must not lead through the file of an image" in why["msg"]
        assert await s.variant(image_id, "thumbnail") == before
        assert await s.sql("SELECT count(*) FROM processing_jobs") == [(1,)]


async def test_job_that_was_accepted_with_such_a_bucket_fails_once_and_can_be_retried(start: Starter) -> None:
    """By an earlier version. What is in its way stays, and is gone once that image is deleted."""
    async with start() as s:
        first = await s.completed(TINY, bucket="lab")
        there = f"lab/processed/thumbnail/{first['image_id']}_thumbnail.webp"
        await s.sql(
            "CREATE TRIGGER accept AFTER INSERT ON processing_jobs BEGIN "
            f"UPDATE processing_jobs SET storage_bucket = '{there}' WHERE job_id = NEW.job_id; END"
        )
        job = await s.ended(await s.upload(TINY))
        assert (job["status"], job["error_code"], job["attempts"]) == ("failed", "place_taken", 1)
        assert job["retryable"] and len(s.staged()) == 1
        assert await s.variant(first["image_id"], "thumbnail")
        assert (await s.http.delete(f"/api/v1/images/{first['image_id']}", headers=s.bearer())).status_code == 200
        again = f"/api/v1/operator/jobs/{job['job_id']}/retry"
        assert (await s.http.post(again, headers=s.operator)).status_code < 300
        with within(WAIT_SECONDS):
            while (await s.job(job["job_id"]))["status"] != "completed":
                await anyio.sleep(0.02)
        assert await s.variant(job["image_id"], "thumbnail")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "bucket",
    [
        "processed",
        "lab/processed",
        "lab/processed/thumbnail",
        f"lab/processed/thumbnail/{ID}",
        f"lab/processed/thumbnail/{ID}_large.webp",
        f"processed/thumbnail/{ID}_thumbnail.webp",
    ],
)
async def test_other_buckets_with_these_words_are_taken(shared: Service, bucket: str) -> None:
    beside = await shared.completed(TINY, bucket="lab")
    image = await shared.completed(TINY, bucket=bucket)
    for one in (beside, image):
        assert await shared.variant(one["image_id"], "thumbnail")
