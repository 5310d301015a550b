"""A service with a second backend beside its own, and its upkeep asked for over the wire."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx

from imgsvc import testing
from imgsvc.storage.base import Storage
from tests.conftest import WAIT_SECONDS, Service
from tests.support.other_storage import Other
from tests.support.speed import within

API = "/api/v1/operator/storage"
SIZES = ("thumbnail", "medium", "large", "original")


@asynccontextmanager
async def keeping(
    folder: Path,
    *,
    storage: Storage | None = None,
    others: Sequence[Storage] = (),
    reserve_mb: int = 0,
    **sections: dict[str, Any],
) -> AsyncIterator[Service]:
    more = {"rate_limit": {"max_uploads": 1_000_000}, "storage": {"reserve_mb": reserve_mb}, **sections}
    settings = testing.settings_in(folder / "data", **more)
    others = others or (Other(folder / "other"),)
    async with testing.serving(settings, storage=storage, others=others) as (app, http):
        del http.headers["Authorization"]
        yield Service(app, settings, http)


async def begin(s: Service, verb: str, **order: Any) -> httpx.Response:
    return await s.http.post(f"{API}/{verb}", json=order, headers=s.operator)


async def task(s: Service) -> dict[str, Any]:
    answer = await s.http.get(f"{API}/task", headers=s.operator)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def ended(s: Service) -> dict[str, Any]:
    with within(WAIT_SECONDS):
        while (found := await task(s))["state"] == "running":
            await anyio.sleep(0.01)
    return found


async def carried_out(s: Service, verb: str, **order: Any) -> dict[str, Any]:
    """How the upkeep has ended."""
    begun = await begin(s, verb, **order)
    assert begun.status_code == 202, begun.text
    return await ended(s)


def found(task: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(one["kind"], one["backend"], one["path"]) for one in task["findings"]}


def key(image_id: str, size: str, bucket: str = "photos") -> str:
    return f"{bucket}/processed/{size}/{image_id}_{size}.webp"


def files(root: Path) -> set[str]:
    names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} if root.is_dir() else set()
    return {name for name in names if not name.startswith((".health/", ".instance"))}


async def variants(s: Service, image_id: str) -> dict[str, bytes]:
    return {size: await s.variant(image_id, size) for size in SIZES}
