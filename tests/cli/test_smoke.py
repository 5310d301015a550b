from tests.conftest import Starter


async def test_smoke(start: Starter, photo: bytes) -> None:
    async with start() as s:
        job = await s.completed(photo)
        assert len(await s.variant(job["image_id"], "thumbnail")) > 100
