"""The memory of reads holds data and no decision: each request is authorized, no matter who has read before."""

import pytest
import pytest_asyncio

from tests.conftest import Service, Starter, shared_service
from tests.support.private_service import IMAGES, PRIVATE, READERS, Image, changed, headers_of, outcome, uploaded

OTHERS = ("stranger", "uploader")
s = shared_service(storage=PRIVATE, server={"cache_mb": 64})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def image(s: Service) -> Image:
    return await uploaded(s)


async def read_by(s: Service, image: Image, who: str) -> list[tuple[int, str]]:
    """The outcomes of all reads where a token counts."""
    paths = (image.image_id, f"{image.image_id}?size=large", f"{image.image_id}/all", f"jobs/{image.job_id}/result")
    return [outcome(await s.http.get(f"{IMAGES}/{path}", headers=headers_of(s, who))) for path in paths]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("who", READERS)
@pytest.mark.parametrize("before", OTHERS)
async def test_memory_filled_by_another_reader(s: Service, image: Image, before: str, who: str) -> None:
    s.state.jobs.table.memory.clear()
    await read_by(s, image, before)
    for url in image.urls.values():
        assert (await s.http.get(url)).status_code == 200
    status, code = READERS[who]
    hits = s.state.jobs.table.memory.hits
    for found in await read_by(s, image, who):
        assert found == (status, code if found[1] != "job_not_found" else "job_not_found")
    batch = await s.http.get(f"{IMAGES}/batch?image_ids={image.image_id}", headers=headers_of(s, who))
    assert batch.status_code == (401 if status == 401 else 200)
    if status != 401:
        assert s.state.jobs.table.memory.hits > hits
        assert batch.json()["found"] == (1 if status == 200 else 0)


@pytest.mark.asyncio(loop_scope="module")
async def test_bytes_in_memory_need_a_signature_as_others(s: Service, image: Image) -> None:
    for url in (image.direct(s), image.urls["medium"]):
        assert (await s.http.get(url)).status_code == 200
        hits = s.state.stores.variants.hits
        assert (await s.http.get(url)).status_code == 200
        assert s.state.stores.variants.hits == hits + 1
        etag = (await s.http.get(url)).headers["ETag"]
        for wrong, code in (
            (url.partition("?")[0], "signature_required"),
            (changed(url, signature="A" * 43), "signature_invalid"),
            (changed(url, expires="1"), "signature_invalid"),
            (changed(url, size="thumbnail") if "size=" in url else f"{url}&signature=x", "signature_invalid"),
        ):
            for headers in ({}, {"If-None-Match": etag}, {"Range": "bytes=0-1"}, s.bearer()):
                assert outcome(await s.http.get(wrong, headers=headers)) == (403, code)
                assert (await s.http.head(wrong, headers=headers)).status_code == 403


async def test_deleted_image_leaves_the_memory(start: Starter) -> None:
    async with start(storage=PRIVATE) as s:
        image = await uploaded(s)
        kept = s.state.stores.variants
        signed = [image.direct(s), *image.urls.values()]
        for url in signed:
            assert (await s.http.get(url)).status_code == 200
        assert (await s.http.delete(f"{IMAGES}/{image.image_id}", headers=s.bearer())).status_code == 200
        for url in signed:
            assert outcome(await s.http.get(url)) == (404, "image_not_found")
        assert kept.held_bytes == 0
