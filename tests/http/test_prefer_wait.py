"""`Prefer: wait=N` (RFC 7240): one request, answered when the job has ended or the time is over."""

import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import httpx
import pytest

from fixtures import make
from imgsvc.service.runner import wind_down
from tests.conftest import Service, Starter
from tests.support.speed import within

TINY = make.tiny()
BROKEN = TINY[: len(TINY) // 2]
JOBS = "/api/v1/images/jobs"
LIMIT_SECONDS = 15


async def upload(s: Service, prefer: str, data: bytes = TINY) -> httpx.Response:
    files = {"file": ("photo.jpg", data)}
    headers = {**s.bearer(), "Prefer": prefer}
    return await s.http.post("/api/v1/images/upload", data={"bucket": "b"}, files=files, headers=headers)


async def job(s: Service, job_id: str, prefer: str) -> httpx.Response:
    return await s.http.get(f"{JOBS}/{job_id}", headers={"Prefer": prefer})


async def timed(answer: Awaitable[httpx.Response]) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    return await answer, time.monotonic() - began


def age(text: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()


class Waiter:
    """A request for a job that waits in the background."""

    def __init__(self) -> None:
        self.answer: httpx.Response | None = None

    async def ask(self, s: Service, job_id: str) -> None:
        self.answer = await job(s, job_id, "wait=20")

    def response(self) -> httpx.Response:
        assert self.answer is not None
        return self.answer


@asynccontextmanager
async def waiting(s: Service, job_id: str) -> AsyncIterator[Waiter]:
    """A request that is waiting when the body begins, and answered (with a limit) at its end."""
    waiter = Waiter()
    with within(LIMIT_SECONDS):
        async with anyio.create_task_group() as group:
            group.start_soon(waiter.ask, s, job_id)
            while job_id not in s.state.jobs.completions._waiting:
                await anyio.sleep(0.01)
            await s.job(job_id)
            assert waiter.answer is None
            yield waiter


async def test_upload_and_job_answer_at_the_end(start: Starter, photo: bytes) -> None:
    async with start() as s:
        accepted = await upload(s, "wait=20", photo)
        assert accepted.status_code == 202
        assert accepted.headers["Preference-Applied"] == "wait=20"
        assert accepted.headers["X-RateLimit-Limit"]
        assert (await s.job(accepted.json()["job_id"]))["status"] == "completed"

        second = await s.upload(photo)
        answer = await job(s, second.json()["job_id"], "respond-async, Wait = 20")
        assert answer.json()["status"] == "completed"
        assert answer.headers["Preference-Applied"] == "wait=20"
        assert answer.headers["Cache-Control"] == "private, no-store"
        assert answer.json() == await s.job(second.json()["job_id"])


RECEIPT = {"job_id", "image_id", "status_url", "message"}


async def test_receipt_of_a_job_that_has_ended_says_how(start: Starter) -> None:
    async with start() as s:
        with within(LIMIT_SECONDS):
            made = (await upload(s, "wait=20")).json()
            broken = (await upload(s, "wait=20", BROKEN)).json()
        assert made.keys() == RECEIPT | {"status", "ready", "urls"}
        assert made["status"] == "completed"
        assert list(made["urls"]) == made["ready"] != []
        for url in made["urls"].values():
            assert (await s.http.get(url)).status_code == 200
        assert made["message"] == "Upload accepted. Processing initiated."
        assert broken.keys() == RECEIPT | {"status", "ready", "urls", "error", "error_code", "retryable"}
        ended = await s.job(broken["job_id"])
        for name in ("status", "ready", "urls", "error", "error_code", "retryable"):
            assert broken[name] == ended[name]
        assert (broken["status"], broken["error_code"]) == ("failed", "image_unreadable")
        assert (await upload(s, "")).json().keys() == RECEIPT
        s.state.jobs.queue.hold()
        assert (await upload(s, "wait=0")).json().keys() == RECEIPT, "it has not ended in time"


async def test_status_has_the_urls_of_what_is_ready(start: Starter) -> None:
    async with start() as s:
        done = await s.completed(TINY)
        shown = await s.job(done["job_id"])
        result = (await s.http.get(f"{JOBS}/{done['job_id']}/result")).json()
        assert shown["urls"] == result["urls"]
        s.state.jobs.queue.hold()
        waiting = await s.job((await s.upload(TINY)).json()["job_id"])
        assert (waiting["ready"], waiting["urls"]) == ([], {})


async def test_urls_of_private_images_are_for_their_readers(start: Starter) -> None:
    async with start(storage={"signed_urls": True}) as s:
        with within(LIMIT_SECONDS):
            made = (await upload(s, "wait=20")).json()
        assert all("signature=" in url for url in made["urls"].values()) and made["urls"]
        strangers = [{}, {"Authorization": "Bearer x"}, s.bearer("eve", org_id="another")]
        for headers in (s.bearer(), *strangers):
            status = (await s.http.get(f"{JOBS}/{made['job_id']}", headers=headers)).json()
            assert bool(status["urls"]) == (headers not in strangers)
            assert status["ready"]


async def test_answers_as_soon_as_it_has_ended(start: Starter) -> None:
    """A waiting request that comes later than the end it waited for was polling, or asleep."""
    async with start() as s:
        accepted = await s.upload(make.jpeg(2400, 1600, quality=70))
        async with waiting(s, accepted.json()["job_id"]) as waiter:
            pass
        assert age(waiter.response().json()["completed_at"]) < 0.5


async def test_time_runs_out(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        accepted, took = await timed(upload(s, "wait=0"))
        assert accepted.headers["Preference-Applied"] == "wait=0"
        assert took < 0.9
        job_id = accepted.json()["job_id"]
        answer, took = await timed(job(s, job_id, "wait=0"))
        assert (answer.json()["status"], answer.headers["Preference-Applied"]) == ("pending", "wait=0")
        assert took < 0.9
        answer, took = await timed(job(s, job_id, "wait=1"))
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.headers["Preference-Applied"]) == ("pending", "wait=1")
        assert 0.95 < took < 2
        answer, took = await timed(upload(s, "wait=1"))
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=1")
        assert 0.95 < took < 2


@pytest.mark.parametrize("on", ["job", "upload"])
async def test_what_a_preference_means(start: Starter, on: str) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        job_id = (await s.upload(TINY)).json()["job_id"]
        for prefer in ("", "wait", "wait=", "wait=x", "wait=-1", "wait=1.5", "await=5", "wait=5s", "wait=0x10", "=5"):
            with within(3):
                answer = await (job(s, job_id, prefer) if on == "job" else upload(s, prefer))
            assert answer.status_code == (200 if on == "job" else 202)
            assert "Preference-Applied" not in answer.headers, prefer


async def test_most_is_30_seconds(start: Starter) -> None:
    async with start() as s:
        job_id = (await s.completed(TINY))["job_id"]
        for prefer in ("wait=31", "wait=999999999", "wait=99999999999999999999", 'wait="31"', "wait=30, wait=2"):
            answer = await job(s, job_id, prefer)
            assert answer.json()["status"] == "completed"
            assert answer.headers["Preference-Applied"] == "wait=30", prefer
        assert (await s.http.get(f"{JOBS}/{job_id}")).headers.get("Preference-Applied") is None
        missing = await job(s, "00000000-0000-4000-8000-000000000000", "wait=20")
        assert missing.status_code == 404


async def test_failing_ends_it(start: Starter) -> None:
    async with start() as s:
        with within(LIMIT_SECONDS):
            accepted = await upload(s, "wait=20", BROKEN)
            assert accepted.status_code == 202
            answer = await job(s, accepted.json()["job_id"], "wait=20")
        assert (answer.json()["status"], answer.json()["error_code"]) == ("failed", "image_unreadable")
        assert answer.headers["Preference-Applied"] == "wait=20"


async def test_deletion_ends_it(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        accepted = (await s.upload(TINY)).json()
        async with waiting(s, accepted["job_id"]) as waiter:
            url = f"/api/v1/images/{accepted['image_id']}"
            assert (await s.http.delete(url, headers=s.bearer())).status_code == 200
        assert waiter.response().status_code == 404
        assert waiter.response().json()["code"] == "job_not_found"


async def test_stopping_ends_it(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        accepted = (await s.upload(TINY)).json()
        async with waiting(s, accepted["job_id"]) as waiter:
            wind_down(s.state)
        assert waiter.response().json()["status"] == "pending"
        with within(2):
            assert (await job(s, accepted["job_id"], "wait=20")).json()["status"] == "pending"


async def test_many_wait_for_one(start: Starter) -> None:
    async with start() as s:
        job_id = (await s.upload(make.jpeg(2400, 1600, quality=70))).json()["job_id"]
        async with waiting(s, job_id) as first, waiting(s, job_id) as second, waiting(s, job_id) as third:
            assert (await job(s, job_id, "wait=0")).json()["status"] != "completed", "one that leaves early"
        answers = [waiter.response().json() for waiter in (first, second, third)]
        assert [answer["status"] for answer in answers] == ["completed"] * 3
        assert s.state.jobs.completions._waiting == {}
