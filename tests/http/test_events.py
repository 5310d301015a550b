"""Server-sent events of jobs: what comes, in which order, where a client goes on, and how many may listen."""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import pytest

from fixtures import make
from imgsvc.http.api import events as endpoint
from imgsvc.http.wire.open_streams import MAX_PER_ADDRESS, OpenStreams
from imgsvc.http.wire.problems import Problem
from tests.conftest import WAIT_SECONDS, Service, Starter, shared_service

TINY = make.tiny()
UNKNOWN = "0f6f2f4e-7b0f-4f61-9a5e-2f6d2f3e1c11"
shared = shared_service()


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    data: dict[str, Any]
    id: str | None


def parsed(text: str) -> list[Event]:
    """The events of a stream, without its comments."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append(Event(fields["event"], json.loads(fields["data"]), fields.get("id")))
    return found


def go_on(s: Service) -> None:
    s.state.jobs.queue._stopping = False
    s.state.jobs.queue.wake()


async def stream(s: Service, path: str, **headers: str) -> httpx.Response:
    with anyio.fail_after(WAIT_SECONDS):
        return await s.http.get(f"/api/v1/images/{path}", headers=headers)


async def listening(s: Service, count: int) -> None:
    with anyio.fail_after(WAIT_SECONDS):
        while s.state.telling.streams.count != count:
            await anyio.sleep(0.01)


async def test_a_job_from_its_receipt_to_its_end(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        job_id = (await s.upload(TINY)).json()["job_id"]
        answers = []

        async def follow() -> None:
            answers.append(await stream(s, f"jobs/{job_id}/events"))

        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await listening(s, 1)
            go_on(s)
        await listening(s, 0)
        (answer,) = answers
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in answer.headers["cache-control"] and answer.headers["x-accel-buffering"] == "no"
        found = parsed(answer.text)
        statuses = [one.data["status"] for one in found if one.kind == "status"]
        assert statuses[0] in ("pending", "processing") and statuses[-1] == "completed"  # it may be claimed by then
        ready = [one.data for one in found if one.kind == "ready"]
        assert sorted(one["variant"] for one in ready) == ["large", "medium", "original", "thumbnail"]
        for one in ready:
            assert (await s.http.get(one["url"])).status_code == 200
        assert ready[-1]["dominant_color"].startswith("#") and len(ready[-1]["thumbhash"]) >= 24
        assert found[-1].kind == "end" and found[-1].data == await s.job(job_id)
        ids = [int(one.id) for one in found if one.id]
        assert ids == sorted(ids) and found[-1].id


async def test_where_a_client_goes_on(start: Starter) -> None:
    async with start() as s:
        job_id = (await s.completed(TINY))["job_id"]
        last = parsed((await stream(s, f"jobs/{job_id}/events")).text)[-1].id
        assert last
        preview = (await s.sql("SELECT id FROM image_upload_events WHERE event_type = 'preview_done'"))[0][0]
        whole = ["large", "medium", "original", "thumbnail"]
        for asked, variants in (
            (str(preview), ["large", "medium", "original"]),
            ("999999999", whole),  # unknown: the present state
            ("0", whole),
            ("nonsense", whole),
            ("9" * 30, whole),
        ):
            found = parsed((await stream(s, f"jobs/{job_id}/events", **{"Last-Event-ID": asked})).text)
            assert sorted(one.data["variant"] for one in found if one.kind == "ready") == variants, asked
            assert found[-1].kind == "end"
        await s.sql("DELETE FROM image_upload_events WHERE id <= ?", preview)
        found = parsed((await stream(s, f"jobs/{job_id}/events", **{"Last-Event-ID": str(preview)})).text)
        assert sorted(one.data["variant"] for one in found if one.kind == "ready") == whole  # too old


async def test_many_jobs_in_one_stream(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        jobs = [(await s.upload(make.tiny(seed=seed))).json() for seed in range(3)]
        gone = jobs[2]
        answers = []

        async def follow() -> None:
            asked = ",".join([*(job["job_id"] for job in jobs), UNKNOWN, jobs[0]["job_id"]])
            answers.append(await stream(s, f"events?jobs={asked}"))

        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await listening(s, 1)
            deleted = await s.http.delete(f"/api/v1/images/{gone['image_id']}", headers=s.bearer())
            assert deleted.status_code == 200
            go_on(s)
        found = parsed(answers[0].text)
        ends = {one.data["job_id"]: one.data["status"] for one in found if one.kind == "end"}
        wanted = dict.fromkeys((job["job_id"] for job in jobs[:2]), "completed")
        assert ends == wanted | {gone["job_id"]: "deleted", UNKNOWN: "not_found"}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"jobs/{UNKNOWN}/events", 404),
        ("jobs/nonsense/events", 404),
        ("events", 422),
        ("events?jobs=", 422),
        ("events?jobs=nonsense", 422),
        ("events?jobs=" + ",".join(f"{n:08x}-7b0f-4f61-9a5e-2f6d2f3e1c11" for n in range(101)), 422),
        (f"events?jobs={UNKNOWN}&more=1", 422),
    ],
)
async def test_refused(shared: Service, path: str, status: int) -> None:
    assert (await stream(shared, path)).status_code == status


async def test_urls_only_for_who_may_read(start: Starter) -> None:
    async with start(storage={"signed_urls": True}) as s:
        job_id = (await s.completed(TINY))["job_id"]
        for headers, seen in ((s.bearer(), True), ({}, False), (s.bearer("eve", org_id="other"), False)):
            found = parsed((await stream(s, f"jobs/{job_id}/events", **headers)).text)
            assert all(bool(one.data["url"]) == seen for one in found if one.kind == "ready")
            assert bool(found[-1].data["urls"]) == seen


async def test_limits_and_a_stop_that_ends_the_streams_first(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        job_id = (await s.upload(TINY)).json()["job_id"]
        answers: list[httpx.Response] = []

        async def follow() -> None:
            answers.append(await stream(s, f"jobs/{job_id}/events"))

        async with anyio.create_task_group() as group:
            for _ in range(MAX_PER_ADDRESS):
                group.start_soon(follow)
            await listening(s, MAX_PER_ADDRESS)
            refused = await stream(s, f"jobs/{job_id}/events")
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            assert (refused.json()["limit"], refused.json()["measured"]) == (4, 4)
            head = await s.http.head(f"/api/v1/images/jobs/{job_id}/events")
            assert head.status_code == 200 and "content-length" not in head.headers
            assert (await s.job(job_id))["status"] == "pending"  # long-poll and status go on
            s.state.stopping.set()
            s.state.telling.feed.wake_all()
        assert [parsed(one.text)[-1].data["status"] for one in answers] == ["pending"] * MAX_PER_ADDRESS
        assert s.state.telling.streams.count == 0


def test_five_hundred_in_all() -> None:
    streams = OpenStreams()
    with ExitStack() as stack:
        for number in range(500):
            stack.enter_context(streams.place(f"10.0.{number // 4}.1"))
        with pytest.raises(Problem, match="500 event streams are open"):
            stack.enter_context(streams.place("192.0.2.1"))
    assert streams.count == 0


async def test_a_comment_keeps_the_connection(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    assert endpoint.PING_SECONDS == 15
    monkeypatch.setattr(endpoint, "PING_SECONDS", 0.02)
    async with start() as s:
        s.state.jobs.queue.hold()
        job_id = (await s.upload(TINY)).json()["job_id"]
        pieces: list[bytes] = []
        enough = anyio.Event()

        async def send(message: Any) -> None:
            pieces.append(message.get("body", b""))
            if pieces.count(b": \n\n") >= 3:
                enough.set()

        async def receive() -> Any:
            await enough.wait()
            return {"type": "http.disconnect"}

        path = f"/api/v1/images/jobs/{job_id}/events"
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "root_path": "",
            "client": ("127.0.0.1", 1),
        }
        with anyio.fail_after(WAIT_SECONDS):
            await s.app(scope, receive, send)
        assert s.state.telling.streams.count == 0  # a client that goes away gives its place back
