"""Kept sources, and images that are rendered again."""

import json

from tests.torture.kill_at.case import Attempt, stopped
from tests.torture.kill_at.scenarios.changes import every_url_answers
from tests.torture.kill_at.scenarios.pictures import tiny
from tests.torture.kill_at.site import Service, bearer, until

OLD = {"thumbnail": 20, "original": 4096}
NEW = {"thumbnail": 24, "original": 4096, "left": {"width": 10, "height": 30, "fit": "cover"}}
TASK = "/api/v1/operator/images/task"


def keeping(attempt: Attempt) -> None:
    attempt.site.more = {**attempt.site.more, "IMAGE_SIZES": json.dumps(OLD), "IMGSVC_IMAGES_KEEP_SOURCE": "stripped"}
    with attempt.site.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny()))
        stopped(attempt, service)


def kept_source(attempt: Attempt) -> None:
    """One is kept, and one goes with its image; the same photo once more takes over the first one's."""
    (first,) = attempt.receipts.values()
    with attempt.serve() as service:
        for seed in (1, 2):
            attempt.ended(service, attempt.upload(service, tiny(seed)))
        attempt.delete(service, first)
        stopped(attempt, service)


def drop_sources(attempt: Attempt) -> None:
    with attempt.serve() as service:
        answer = service.ask("POST", "/api/v1/operator/images/drop-sources", b"{}", service.operator)
        attempt.noted(answer, "dropping sources")
        stopped(attempt, service)


def sources_answer(attempt: Attempt, service: Service) -> None:
    """Each image whose row names a source has it, and no job has failed for it."""
    for image_id, status, digest in attempt.rows(
        "SELECT image_id, status, source_sha256 FROM processing_jobs WHERE deleted_at IS NULL"
    ):
        if status != "completed":
            attempt.wrong.append(f"The image {image_id} is {status}.")
        method = "HEAD" if digest else "GET"  # either way the body is none, or JSON
        answer = service.ask(method, f"/api/v1/images/{image_id}/source", headers=bearer())
        if answer.status != (200 if digest else 404):
            attempt.wrong.append(f"The source of {image_id} is answered with {answer.status}.")


def with_old_sizes(attempt: Attempt) -> None:
    """Images whose URLs are remembered, and a service with other sizes to come."""
    attempt.site.more = {**attempt.site.more, "IMAGE_SIZES": json.dumps(OLD)}
    with attempt.site.serve() as service:
        for seed in (1, 2):
            attempt.ended(service, attempt.upload(service, tiny(seed)))
        for image_id in attempt.receipts.values():
            attempt.memory[image_id] = service.ask("GET", f"/api/v1/images/{image_id}/all").body["urls"]
        stopped(attempt, service)
    attempt.site.more = {**attempt.site.more, "IMAGE_SIZES": json.dumps(NEW)}


def render_again(attempt: Attempt) -> None:
    with attempt.serve() as service:
        order = service.ask("POST", "/api/v1/operator/images/render", b"{}", service.operator)
        attempt.noted(order, "an order to render again")
        _over(service)
        stopped(attempt, service)


def all_rendered_again(attempt: Attempt, service: Service) -> None:
    """The task has gone on; each URL of before answers with what its row names now."""
    _over(service)
    for state, rendered, failed in attempt.rows("SELECT state, rendered, failed FROM render_tasks"):
        if (state, rendered + failed) != ("done", 2):
            attempt.wrong.append(f"The task is {state}, with {rendered} rendered and {failed} failed.")
    attempt.memory = {
        image_id: {name: url for name, url in urls.items() if name in OLD} for image_id, urls in attempt.memory.items()
    }
    _known(attempt)
    every_url_answers(attempt, service)


def _known(attempt: Attempt) -> None:
    """The new size's URL was not handed out yet: it is left out."""
    for image_id, urls in attempt.memory.items():
        rows = attempt.rows("SELECT processed_paths, storage_bucket FROM processing_jobs WHERE image_id = ?", image_id)
        for paths, bucket in rows:
            for name, key in json.loads(paths).items():
                urls.setdefault(name, f"/storage/{bucket}/{key}")


def _over(service: Service) -> None:
    """Wait until no task runs. Raises Gone."""

    def over() -> bool:
        return service.ask("GET", TASK, headers=service.operator).body.get("state") != "running"

    until(over, 20, why="the task does not end")
