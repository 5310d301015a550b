"""Variants in a further format: what is made of a job that is completed already."""

import json

from tests.torture.kill_at.case import Attempt, stopped
from tests.torture.kill_at.scenarios.pictures import tiny
from tests.torture.kill_at.site import Service

SIZES = {"thumbnail": 20, "crop": {"width": 10, "height": 30, "fit": "cover"}, "original": 4096}


def in_avif(attempt: Attempt) -> None:
    more = {"IMAGE_SIZES": json.dumps(SIZES), "IMGSVC_IMAGES_FORMATS": "webp,avif"}
    attempt.site.more = {**attempt.site.more, **more}


def upload(attempt: Attempt) -> None:
    with attempt.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny()))
        stopped(attempt, service)


def upload_and_delete(attempt: Attempt) -> None:
    """The deletion comes while the AVIFs wait, are made, or are there."""
    with attempt.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny()))
        attempt.delete(service, *attempt.receipts.values())
        stopped(attempt, service)


def every_format_or_none(attempt: Attempt, service: Service) -> None:
    """A completed job keeps its WebPs, whatever became of its AVIFs; those are all there, or their row says why not."""
    for image_id in set(attempt.receipts.values()) - attempt.deleted:
        shown = service.ask("GET", f"/api/v1/images/{image_id}/all").body
        if shown.get("code") is not None:
            continue  # it has failed, or was deleted and the answer did not arrive
        if sorted(shown["urls"]) != sorted(SIZES):
            attempt.wrong.append(f"The image {image_id} has {sorted(shown['urls'])}.")
        made = sorted(shown["formats"].get("avif", ()))
        failed = attempt.rows("SELECT error_code FROM renders WHERE image_id = ? AND state = 'failed'", image_id)
        if made != sorted(SIZES) and not failed:
            attempt.wrong.append(f"The image {image_id} has {made} in AVIF, and nothing says why.")
