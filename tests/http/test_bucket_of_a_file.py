"""A bucket that is named like an image's file can't be stored beside it: the upload is refused, and others are not."""

import pytest

from fixtures import make
from tests.conftest import Starter

TINY = make.jpeg(64, 48)
ID = "11111111-1111-4111-8111-111111111111"


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
async def test_other_buckets_with_these_words_are_taken(start: Starter, bucket: str) -> None:
    async with start() as s:
        beside = await s.completed(TINY, bucket="lab")
        image = await s.completed(TINY, bucket=bucket)
        for one in (beside, image):
            assert await s.variant(one["image_id"], "thumbnail")
