"""What several scenarios begin with and look at: images whose every byte is remembered."""

import hashlib
import json
from collections.abc import Callable
from functools import cache

from fixtures import make
from tests.torture.kill_at.case import Attempt, stopped
from tests.torture.kill_at.site import Service, until

SIZES = ("thumbnail", "medium", "large", "original")


@cache
def tiny(seed: int = 1) -> bytes:
    return make.tiny(seed)


@cache
def torn() -> bytes:
    """A picture whose header is sound and whose end is missing."""
    whole = make.jpeg(200, 150)
    return whole[: len(whole) // 2]


def one_completed(attempt: Attempt) -> None:
    several_completed(attempt, 1)


def several_completed(attempt: Attempt, count: int = 2) -> None:
    """Images whose every byte is remembered."""
    with attempt.site.serve() as service:
        for seed in range(count):
            attempt.ended(service, attempt.upload(service, tiny(seed)))
        for image_id in attempt.receipts.values():
            attempt.memory[image_id] = shown(service, image_id)
        stopped(attempt, service)


def also_as_avif(attempt: Attempt) -> None:
    attempt.site.more = {**attempt.site.more, "IMGSVC_IMAGES_FORMATS": "webp,avif", "IMAGE_SIZES": '{"small": 40}'}


def upload_with_avif(attempt: Attempt) -> None:
    """Completed first; its AVIF comes after that, from the same source."""
    with attempt.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny()))
        stopped(attempt, service)


def avif_is_there(attempt: Attempt, service: Service) -> None:
    """Of each completed image, once no render waits."""
    attempt.rest(service)
    completed = "SELECT image_id FROM processing_jobs WHERE status = 'completed' AND deleted_at IS NULL"
    for (image_id,) in attempt.rows(completed):
        urls = service.ask("GET", f"/api/v1/images/{image_id}/all").body["formats"]["avif"]
        if not service.raw(urls["small"]):
            attempt.wrong.append("An AVIF is empty.")


def shown(service: Service, image_id: str) -> dict[str, str]:
    """{size: digest} of the bytes that a client gets."""
    paths = {size: f"/api/v1/images/{image_id}/direct?size={size}" for size in SIZES}
    return {size: hashlib.sha256(service.raw(path)).hexdigest() for size, path in paths.items()}


def same_bytes(attempt: Attempt, service: Service) -> None:
    there = {row[0] for row in attempt.rows("SELECT image_id FROM processing_jobs WHERE deleted_at IS NULL")}
    for image_id, before in attempt.memory.items():
        if image_id in there and shown(service, image_id) != before:
            attempt.wrong.append(f"The image {image_id} has other bytes than before.")


def upkeep(service: Service, verb: str, meanwhile: Callable[[], None] | None = None, **order: object) -> None:
    """Ask for it, do something else meanwhile, and wait for its end. Raises Gone."""
    service.ask("POST", f"/api/v1/operator/storage/{verb}", json.dumps(order).encode(), service.operator)
    if meanwhile:
        meanwhile()

    def over() -> bool:
        body = service.ask("GET", "/api/v1/operator/storage/task", headers=service.operator).body
        return body.get("state") != "running"

    until(over, 20, why=f"{verb} does not end")


def all_there(attempt: Attempt, service: Service) -> None:
    """No image is missing, and each has its bytes."""
    there = {row[0] for row in attempt.rows("SELECT image_id FROM processing_jobs WHERE deleted_at IS NULL")}
    attempt.wrong += [f"The image {image_id} is gone." for image_id in attempt.memory.keys() - there]
    same_bytes(attempt, service)
