"""Uploads: whole, in chunks, repeated, refused, broken off, and rendered at the second try."""

import json
from contextlib import closing
from pathlib import Path

from fixtures import make
from tests.support.two_storages import FETCH_HERE
from tests.support.web import Web
from tests.torture.kill_at.case import REST_SECONDS, Attempt, stopped
from tests.torture.kill_at.scenarios.pictures import shown, tiny, torn
from tests.torture.kill_at.site import Half, Service, Site, bearer, until

INSPECTED = bytes(100_000)  # behind a picture, which is then written by one thread while another one inspects it
COSTLY = b"\xff" * len(INSPECTED)  # in its coded data: refused
HALF = 600_000  # bytes of twice as many, which are too many to be collected in memory: a part of them is written


def upload(attempt: Attempt) -> None:
    with attempt.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny()))
        stopped(attempt, service)


def upload_in_chunks(attempt: Attempt) -> None:
    with attempt.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny(2) + bytes(200_000), chunks=3))
        stopped(attempt, service)


def same_photo_twice(attempt: Attempt) -> None:
    """A client that got no answer sends it again with the same key: there is one image."""
    with attempt.serve() as service:
        jobs = {attempt.upload(service, tiny() + INSPECTED, key="once") for _ in range(3)} - {None}
        if len(jobs) > 1:
            attempt.wrong.append(f"One key made {len(jobs)} jobs.")
        for job in jobs:
            attempt.ended(service, job)
        stopped(attempt, service)


def one_image_of_the_key(attempt: Attempt, service: Service) -> None:
    attempt.upload(service, tiny() + INSPECTED, key="once")
    attempt.rest(service)
    count = len(attempt.rows("SELECT 1 FROM processing_jobs WHERE idempotency_key = 'once'"))
    if count != 1 or len(attempt.receipts) != 1:
        attempt.wrong.append(f"One key has {count} rows and {len(attempt.receipts)} receipts.")
    until(lambda: not list((attempt.site.data / "staging").iterdir()), 3, why="a source is left in the staging folder")


def reuse(attempt: Attempt) -> None:
    """A photo that is there already takes over the first one's files."""
    with attempt.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny(0)))
        stopped(attempt, service)


def reuse_while_the_first_goes(attempt: Attempt) -> None:
    with attempt.serve() as service:
        first, job = next(iter(attempt.receipts.values())), attempt.upload(service, tiny(0))
        attempt.delete(service, first)
        attempt.ended(service, job)
        stopped(attempt, service)


def same_variants(attempt: Attempt, service: Service) -> None:
    """Each of the images has the bytes that the first had, before and after one more of them."""
    attempt.rest(service)
    attempt.ended(service, attempt.upload(service, tiny(0)))
    (before,) = attempt.memory.values()
    there = {
        row[0]
        for row in attempt.rows(
            "SELECT image_id FROM processing_jobs WHERE status = 'completed' AND deleted_at IS NULL"
        )
    }
    if wrong := [image_id for image_id in there if shown(service, image_id) != before]:
        attempt.wrong.append(f"Other bytes than those of the first: {', '.join(wrong)}.")
    if attempt.rows("SELECT 1 FROM job_sources WHERE twin IS NOT NULL"):
        attempt.wrong.append("A job still has a twin that it waits for.")


def failing_picture(attempt: Attempt) -> None:
    with attempt.serve() as service:
        attempt.ended(service, attempt.upload(service, torn()))
        stopped(attempt, service)


def refused_uploads(attempt: Attempt) -> None:
    """One can't be read, one is larger than it may be, which its chunks show late, one is beyond the rate limit."""
    with attempt.serve() as service:
        unreadable = attempt.upload(service, tiny()[:-2] + COSTLY, also=(422,))
        too_large = attempt.upload(service, tiny() + bytes(1_500_000), chunks=3, also=(413,))
        first = attempt.upload(service, tiny())
        attempt.ended(service, first)
        second = attempt.upload(service, tiny(2), also=(429,))
        if unreadable or too_large or (first and second):
            attempt.wrong.append("An upload was accepted that is beyond a limit.")
        stopped(attempt, service)


def few_and_small(attempt: Attempt) -> None:
    attempt.site.more = {**attempt.site.more, "RATE_LIMIT_MAX_UPLOADS": "1", "MAX_UPLOAD_SIZE_MB": "1"}


def tight(attempt: Attempt) -> None:
    """A quota that has room for one image, and its usage counted."""
    attempt.site.more = {**attempt.site.more, "IMGSVC_QUOTA_BYTES_PER_USER": "4000"}


def beyond_the_quota(attempt: Attempt) -> None:
    """Uploads until one is refused, then a deletion, and one more. The invariants compare usage with the files."""
    with attempt.serve() as service:
        jobs = []
        for seed in range(6):
            job = attempt.upload(service, tiny(seed))
            attempt.ended(service, job)
            if job is None:
                break
            jobs.append(job)
        if len(jobs) == 6:
            attempt.wrong.append("A quota refuses nothing.")
        attempt.delete(service, *(attempt.receipts[job] for job in jobs))
        attempt.ended(service, attempt.upload(service, tiny(7)))
        stopped(attempt, service)


def own_web(site: Site) -> None:
    site.more = {
        **site.more,
        FETCH_HERE: "yes",
        "IMGSVC_FETCH_ALLOWED_HOSTS": "127.0.0.1",
    }


def fetch(attempt: Attempt) -> None:
    """By address, twice: a photo, and what is none."""
    with attempt.serve() as service, Web({"/a.jpg": tiny(), "/text": b"no picture" * 100}) as web:
        headers = {**bearer(), "Content-Type": "application/json"}
        for path in ("/a.jpg", "/text"):
            body = json.dumps({"url": f"{web.url}{path}", "bucket": "b"}).encode()
            answer = service.ask("POST", "/api/v1/images/fetch", body, headers)
            if answer.status not in (415, 422):
                attempt.noted(answer, "a fetch")
            if answer.status == 202:
                attempt.receipts[answer.body["job_id"]] = answer.body["image_id"]
                attempt.ended(service, answer.body["job_id"])
        stopped(attempt, service)


def fetched_is_told(attempt: Attempt, _: Service) -> None:
    """Each accepted one has its audit event, from the same transaction."""
    ((accepted, told),) = attempt.rows(
        "SELECT (SELECT count(*) FROM processing_jobs),"
        " (SELECT count(*) FROM image_upload_events WHERE event_type = 'fetched')"
    )
    if accepted != told:
        attempt.wrong.append(f"{accepted} uploads by address have {told} audit events.")


def broken_off(attempt: Attempt) -> None:
    """A client goes away amid its upload, and another one's is accepted."""
    with attempt.serve() as service:
        with closing(half_sent(attempt, service)):
            pass
        until(
            lambda: service.gone or not _parts(attempt) or attempt.has_logged("staged_file_not_removed"), REST_SECONDS
        )
        attempt.ended(service, attempt.upload(service, tiny()))
        stopped(attempt, service)


def stopped_amid_upload(attempt: Attempt) -> None:
    """The client has no receipt, and nothing is left of what it sent."""
    with attempt.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny()))
        with closing(half_sent(attempt, service)):
            stopped(attempt, service)


def impatient(attempt: Attempt) -> None:
    attempt.site.more = {**attempt.site.more, "IMGSVC_SERVER_GRACEFUL_SECONDS": "0.2"}


def half_sent(attempt: Attempt, service: Service) -> Half:
    """Once a part of it is on the disk, or the service has refused it. Raises Gone."""
    half = service.begin_upload("/api/v1/images/upload?bucket=b", make.tiny() + bytes(HALF), 2 * HALF, bearer())
    until(lambda: service.gone or _parts(attempt) or half.is_answered(), REST_SECONDS, why="the upload does not begin")
    if refused := half.answer():
        attempt.noted(refused, "an upload that had begun")  # by the fault, not since nothing more came
    return half


def _parts(attempt: Attempt) -> list[Path]:
    return list((attempt.site.data / "staging").glob("*.part"))


def without_a_bucket(attempt: Attempt) -> None:
    """A file is where the bucket's folder is to be made."""
    storage = attempt.site.folder / "storage"
    storage.mkdir(exist_ok=True)
    (storage / "b").write_bytes(b"")


def retried_by_itself(attempt: Attempt) -> None:
    """The first attempt fails, and by the next the reason is gone."""
    with attempt.serve() as service:
        job = attempt.upload(service, tiny())

        def tried() -> bool:
            rows = attempt.rows("SELECT attempt_count > 0 OR error_code IS NOT NULL FROM processing_jobs")
            return service.gone or not rows or bool(rows[0][0])

        until(tried, REST_SECONDS, why="the attempt does not fail")
        make_room(attempt)
        attempt.ended(service, job)
        stopped(attempt, service)


def make_room(attempt: Attempt) -> None:
    bucket = attempt.site.folder / "storage/b"
    if bucket.is_file():
        bucket.unlink()


def a_ticket(attempt: Attempt) -> None:
    """A ticket for two uploads."""
    with attempt.site.serve() as service:
        headers = {**bearer(), "Content-Type": "application/json"}
        body = b'{"bucket": "b", "uploads": 2}'
        answer = service.ask("POST", "/api/v1/images/tickets", body, headers)
        assert answer.status == 201
        attempt.memory["url"] = answer.body["upload_url"]
        stopped(attempt, service)


def upload_with_ticket(attempt: Attempt) -> None:
    """Twice, and each once more with its key, as a client that got no answer does."""
    with attempt.serve() as service:
        jobs = [attempt.upload(service, tiny(seed), key=f"k{seed}", url=attempt.memory["url"]) for seed in (0, 0, 1, 1)]
        for job in {*jobs} - {None}:
            attempt.ended(service, job)
        stopped(attempt, service)


def ticket_is_spent_by_what_was_accepted(attempt: Attempt, service: Service) -> None:
    attempt.rest(service)
    ((left,),) = attempt.rows("SELECT uploads_left FROM upload_tickets")
    ((accepted,),) = attempt.rows("SELECT count(*) FROM processing_jobs WHERE ticket_id IS NOT NULL")
    if left + accepted != 2:
        attempt.wrong.append(f"A ticket of 2 uploads has {left} left, and {accepted} were accepted.")
