"""Changes of completed images: crops that are rendered again around another point."""

import hashlib
import json

from tests.torture.kill_at.case import Attempt, stopped
from tests.torture.kill_at.scenarios.pictures import tiny
from tests.torture.kill_at.site import Service, bearer

CROPS = {
    "thumbnail": 20,
    "left": {"width": 10, "height": 30, "fit": "cover"},
    "right": {"width": 12, "height": 40, "fit": "cover"},
    "original": 4096,
}

PATCHED = {"client_metadata": {"title": "Kept"}, "expires_at": "2035-01-01T00:00:00Z"}


def with_a_crop(attempt: Attempt) -> None:
    """An image with two crops. The URLs that were handed out are remembered."""
    attempt.site.more = {**attempt.site.more, "IMAGE_SIZES": json.dumps(CROPS)}
    with attempt.site.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny()))
        (image_id,) = attempt.receipts.values()
        attempt.memory[image_id] = service.ask("GET", f"/api/v1/images/{image_id}/all").body["urls"]
        stopped(attempt, service)


def focal(attempt: Attempt) -> None:
    with attempt.serve() as service:
        _set_focal(attempt, service, 0.0)
        stopped(attempt, service)


def focal_twice(attempt: Attempt) -> None:
    """The second one comes while the first waits, runs, or is done."""
    with attempt.serve() as service:
        _set_focal(attempt, service, 0.0)
        _set_focal(attempt, service, 1.0)
        stopped(attempt, service)


def focal_and_delete(attempt: Attempt) -> None:
    with attempt.serve() as service:
        _set_focal(attempt, service, 0.0)
        attempt.delete(service, *attempt.receipts.values())
        stopped(attempt, service)


def one_to_change(attempt: Attempt) -> None:
    with attempt.site.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny()))
        stopped(attempt, service)


def patch(attempt: Attempt) -> None:
    """Metadata and time of expiry, in one request."""
    with attempt.serve() as service:
        (image_id,) = attempt.receipts.values()
        headers = {**bearer(), "Content-Type": "application/merge-patch+json"}
        body = json.dumps(PATCHED).encode()
        answer = attempt.noted(service.ask("PATCH", f"/api/v1/images/{image_id}", body, headers), "a change")
        attempt.memory["answered"] = answer.status
        stopped(attempt, service)


def patched_as_a_whole(attempt: Attempt, _: Service) -> None:
    ((metadata, expires_at),) = attempt.rows("SELECT client_metadata, expires_at FROM processing_jobs")
    changed = (json.loads(metadata) == PATCHED["client_metadata"], expires_at is not None)
    if len({*changed}) != 1 or (attempt.memory.get("answered") == 200 and not changed[0]):
        attempt.wrong.append(f"Of a change were made: metadata {changed[0]}, expiry {changed[1]}.")
    events = attempt.rows("SELECT count(*) FROM image_upload_events WHERE event_type = 'updated'")[0][0]
    if events != changed[0]:
        attempt.wrong.append(f"{events} audit events tell of a change.")


def _set_focal(attempt: Attempt, service: Service, x: float) -> None:
    (image_id,) = attempt.receipts.values()
    headers = {**bearer(), "Content-Type": "application/merge-patch+json"}
    body = json.dumps({"focal": {"x": x, "y": 0.5}}).encode()
    attempt.noted(service.ask("PATCH", f"/api/v1/images/{image_id}", body, headers), "a focal point")


def every_url_answers(attempt: Attempt, service: Service) -> None:
    """Each URL that was handed out answers with the bytes that the row names, at once or through a redirect; nothing
    has become `failed`."""
    for image_id, urls in attempt.memory.items():
        rows = attempt.rows(
            "SELECT status, processing_metadata FROM processing_jobs WHERE image_id = ? AND deleted_at IS NULL",
            image_id,
        )
        if not rows:
            continue
        status, measured = rows[0]
        if status != "completed":
            attempt.wrong.append(f"The image {image_id} is {status}.")
        for name, made in json.loads(measured)["variants"].items():
            if hashlib.sha256(service.raw(urls[name])).hexdigest() != made["sha256"]:
                attempt.wrong.append(f"The URL of {name} does not lead to what the row names.")
