"""What the tests of reuse look at: the files of an image, its metadata, the metric."""

import hashlib
from pathlib import Path
from typing import Any

from fixtures import make
from imgsvc.storage.keys import variant_key
from tests.conftest import Service

SIZES = ("thumbnail", "medium", "large", "original")
PHOTO = make.jpeg(160, 120)


def file(s: Service, image_id: str, size: str) -> Path:
    return s.settings.storage.path / "photos" / variant_key(size, image_id)


def inodes(s: Service, image_id: str) -> list[int]:
    return [file(s, image_id, size).stat().st_ino for size in SIZES]


async def reuse(s: Service) -> dict[str, int]:
    """{status: jobs} of the metric."""
    text = (await s.http.get("/metrics", headers=s.operator)).text
    lines = (line for line in text.splitlines() if line.startswith("image_reuse_total{"))
    found = {line.split('"')[1]: int(float(line.split()[-1])) for line in lines}
    return {status: jobs for status, jobs in found.items() if jobs}


async def all_of(s: Service, image_id: str, user: str = "alice") -> dict[str, Any]:
    body: dict[str, Any] = (await s.http.get(f"/api/v1/images/{image_id}/all", headers=s.bearer(user))).json()
    return {**body["metadata"], "urls": sorted(body["urls"])}


async def assert_right(s: Service, image_id: str) -> None:
    """Each variant is what the row says of it."""
    job = await s.state.jobs.table.job_of_image(image_id)
    assert job is not None and set(job.ready) == set(SIZES)
    for size in SIZES:
        data = await s.variant(image_id, size)
        made = job.measured["variants"][size]
        assert (len(data), hashlib.sha256(data).hexdigest()) == (made["size_bytes"], made["sha256"])
