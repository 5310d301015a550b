"""Images whose variants are the same files: to maintenance they are images like all others."""

from pathlib import Path

import anyio

from fixtures import make
from tests.conftest import WAIT_SECONDS, Service
from tests.support.backups import put_back
from tests.support.maintenance import carried_out, files, keeping, key, variants
from tests.support.speed import within

PHOTO = make.jpeg(200, 150)


async def at_rest(s: Service) -> None:
    """Nothing of a row changes any more: its source is removed."""
    with within(WAIT_SECONDS):
        while s.state.jobs.queue.active_runs:
            await anyio.sleep(0.01)


async def test_linked_variants_are_verified_backed_up_and_moved(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        images = [(await s.completed(PHOTO))["image_id"] for _ in range(3)]
        await at_rest(s)
        root = s.settings.storage.path
        assert len({(root / key(image, "large")).stat().st_ino for image in images}) == 1
        before = await variants(s, images[0])
        report = await carried_out(s, "verify", digests=True, grace_seconds=0)
        assert (report["well"], report["counts"]["files"]) == (True, 12)
        assert (await carried_out(s, "gc", dry_run=False, older_than_seconds=0))["findings"] == []
        saved = await carried_out(s, "backup", destination=str(tmp_path / "backup"))
        assert (saved["state"], saved["counts"]["variants"]) == ("done", 12)
        assert (await carried_out(s, "migrate", to="other"))["state"] == "done"
        assert files(root) == set() and len(files(tmp_path / "other")) == 12
        for image in images:
            assert await variants(s, image) == before
        assert (await s.http.delete(f"/api/v1/images/{images[0]}", headers=s.bearer())).json()["files_removed"] == 4
        assert await variants(s, images[1]) == before
    await put_back(tmp_path / "backup", tmp_path / "two")
    async with keeping(tmp_path / "two") as s:
        for image in images:
            assert await variants(s, image) == before


async def test_damage_is_found_in_each_image_that_has_the_file(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        images = [(await s.completed(PHOTO))["image_id"] for _ in range(2)]
        await at_rest(s)
        path = s.settings.storage.path / key(images[0], "medium")
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        report = await carried_out(s, "verify", digests=True)
        assert {one["path"] for one in report["findings"]} == {key(image, "medium") for image in images}
        third = (await s.completed(PHOTO))["image_id"]
        assert (s.settings.storage.path / key(third, "medium")).read_bytes()[-1:] != b"x"
