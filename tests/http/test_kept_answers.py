"""All variants of an image are kept with its row, as JSON: where all readers get the same, and it is short."""

import json
from typing import Any

import pytest

from fixtures import make
from imgsvc.http.api.images import ALL_URLS
from imgsvc.http.wire.image_patch import MERGE_PATCH
from imgsvc.jobs.table.model import Job
from tests.conftest import Service, Starter, shared_service

TINY = make.tiny()
shared = shared_service(server={"cache_mb": 1})


async def all_urls(s: Service, image_id: str) -> bytes:
    answer = await s.http.get(f"/api/v1/images/{image_id}/all", headers=s.bearer())
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "private, no-store"
    return answer.content


async def row(s: Service, image_id: str) -> Job:
    job = await s.state.jobs.table.job_of_image(image_id)
    assert job
    return job


@pytest.mark.asyncio(loop_scope="module")
async def test_kept_until_the_row_changes(shared: Service) -> None:
    image_id = (await shared.completed(TINY, metadata=json.dumps({"alt": "a dog"})))["image_id"]
    first = await all_urls(shared, image_id)
    assert (await row(shared, image_id)).derived[ALL_URLS] == first
    assert await all_urls(shared, image_id) == first
    change = {"client_metadata": {"alt": "a cat"}}
    headers = {"Content-Type": MERGE_PATCH, **shared.bearer()}
    changed = await shared.http.patch(f"/api/v1/images/{image_id}", json=change, headers=headers)
    assert changed.status_code == 200
    assert json.loads(await all_urls(shared, image_id)) == changed_alt(json.loads(first), "a dog", "a cat")


def changed_alt(page: dict[str, Any], old: str, new: str) -> Any:
    return json.loads(json.dumps(page).replace(old, new))


@pytest.mark.asyncio(loop_scope="module")
async def test_not_kept_where_it_is_long(shared: Service) -> None:
    """Five characters of HTML for each of the description's, twice: the memory counts with less."""
    image_id = (await shared.completed(TINY, metadata=json.dumps({"alt": "&" * 1000})))["image_id"]
    first = await all_urls(shared, image_id)
    assert ALL_URLS not in (await row(shared, image_id)).derived
    assert await all_urls(shared, image_id) == first


async def test_not_kept_where_urls_end(start: Starter) -> None:
    async with start(storage={"signed_urls": True}, server={"cache_mb": 1}) as s:
        image_id = (await s.completed(TINY))["image_id"]
        await all_urls(s, image_id)
        assert ALL_URLS not in (await row(s, image_id)).derived
