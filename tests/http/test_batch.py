"""A batch is the same to the letter whether it is made of rows from the database, from memory, or of both."""

import uuid
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from fixtures import make
from imgsvc.http.api.images import Batch
from tests.conftest import Service, Starter, shared_service
from tests.support.private_service import PRIVATE

TINY = make.tiny()
BATCH = "/api/v1/images/batch"
s = shared_service(service={"public_url": "https://pictures.example.org/a%20b"}, server={"cache_mb": 1})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def images(s: Service) -> list[str]:
    return [(await s.completed(TINY, bucket=f"b/{number}"))["image_id"] for number in range(3)]


async def entry(s: Service, image_id: str, size: str) -> dict[str, Any]:
    """As the page of the one image says it."""
    one = (await s.http.get(f"/api/v1/images/{image_id}?size={size}")).json()
    placeholders = {name: one["metadata"][name] for name in ("dominant_color", "thumbhash")}
    return {"image_id": image_id, "url": one["url"], "size": size, **placeholders}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("size", ["medium", "thumbnail"])
async def test_batch_to_the_letter(s: Service, images: list[str], size: str) -> None:
    unknown, (first, second, third) = str(uuid.uuid4()), images
    asked = [third, unknown, first.upper(), 'no"id"[]', second, third]
    found = [await entry(s, image_id, size) for image_id in (third, first, second, third)]
    whole = Batch.model_validate({"images": found, "requested": 6, "found": 4, "missing": [unknown, 'no"id"[]']})
    table = s.state.jobs.table
    for in_memory in (0, 1, 3):  # the third time all of it, and the entries that the second one has made
        table.memory.clear()
        for image_id in images[:in_memory]:
            await table.job_of_image(image_id)
        for separator in (",", "%2C", "+,%20"):
            text = separator.join(quote(image_id) for image_id in asked)
            answer = await s.http.get(f"{BATCH}?image_ids={text}&size={size}")
            assert answer.content == whole.model_dump_json().encode()
            assert answer.headers["Content-Length"] == str(len(answer.content))
            assert answer.headers["Cache-Control"] == "private, no-store"


@pytest.mark.asyncio(loop_scope="module")
async def test_refused_query_is_refused_again(s: Service, images: list[str]) -> None:
    for query in (f"image_ids={','.join(images)}&size=medium&size=large", f"image_ids={','.join(images)}&size=a%20b"):
        for _ in range(2):
            assert (await s.http.get(f"{BATCH}?{query}")).status_code == 422


async def test_deleted_image_leaves_the_batch(start: Starter) -> None:
    async with start() as s:
        image_id = (await s.completed(TINY))["image_id"]
        for _ in range(2):
            assert (await s.http.get(f"{BATCH}?image_ids={image_id}")).json()["found"] == 1
        assert (await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())).status_code == 200
        assert (await s.http.get(f"{BATCH}?image_ids={image_id}")).json()["missing"] == [image_id]


async def test_signed_urls_are_made_for_each_answer(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start(storage=PRIVATE) as s:
        image_id = (await s.completed(TINY))["image_id"]
        path, urls, signatures = f"{BATCH}?image_ids={image_id}", [], s.state.stores.urls.signatures
        assert signatures is not None
        for moment in (1_800_000_000.0, 1_800_003_600.0):
            monkeypatch.setattr(signatures, "_clock", lambda moment=moment: moment)
            for _ in range(2):
                answer = await s.http.get(path, headers=s.bearer())
                urls.append(answer.json()["images"][0]["url"])
        assert urls[0] == urls[1] != urls[2] == urls[3]
        stranger = await s.http.get(path, headers=s.bearer(org_id="elsewhere"))
        assert stranger.json()["missing"] == [image_id]
