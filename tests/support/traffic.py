"""A service in which each kind of event happens once, and its /metrics at some moments."""

import asyncio
import os
import pickle
import signal
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, get_args

import anyio
from starlette.types import Message

from fixtures import make
from imgsvc.imaging.recipe import Recipe
from imgsvc.jobs.clocks import Reading
from imgsvc.jobs.cluster.link_state import LinkState, TicketEnd
from imgsvc.jobs.cluster.messages import Machine
from imgsvc.jobs.lanes.cage import Posture
from imgsvc.jobs.table.byte_quota import ByteLimits
from imgsvc.jobs.table.further_render import NewRender
from tests.conftest import WAIT_SECONDS, Service, with_workers
from tests.support.once import once
from tests.support.speed import within
from tests.support.told_metrics import Sample, samples

Told = dict[Sample, float]
RETRY_SECONDS = 1.0
IDS = {name: str(uuid.uuid4()) for name in ("job", "image", "trace", "path")}
TINY = make.tiny()


async def told(s: Service) -> Told:
    response = await s.http.get("/metrics", headers=s.operator)
    assert response.status_code == 200, response.text
    return samples(response.text)


def value(told: Told, metric: str, **labels: str) -> float:
    return told[metric, frozenset(labels.items())]


async def told_when(s: Service, true: Callable[[Told], bool]) -> Told:
    """The metrics, as soon as `true` holds for them."""
    with within(WAIT_SECONDS):
        while not true(now := await told(s)):
            await anyio.sleep(0.01)
    return now


def go_on(s: Service) -> None:
    """Claim again, after `queue.hold()`."""
    s.state.jobs.queue._stopping = False
    s.state.jobs.queue.wake()


async def broken_off(s: Service) -> None:
    """An upload whose client goes away amid the body."""
    coming: list[Message] = [{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return coming.pop(0)

    async def send(_message: Message) -> None:
        return

    headers = {"host": "localhost", "content-type": "image/jpeg", **s.bearer()}
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/api/v1/images/upload",
        "query_string": b"bucket=photos",
        "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
        "root_path": "",
    }
    await s.app(scope, receive, send)


async def _refusals(s: Service) -> None:
    assert (await s.upload(b"no picture")).status_code == 415
    await broken_off(s)
    window = ("default-org", "greedy", datetime.now(UTC).isoformat(timespec="microseconds"), 1_000_000)
    await s.sql("INSERT INTO upload_rate_limits VALUES (?, ?, ?, ?)", *window)
    assert (await s.upload(TINY, user="greedy")).status_code == 429
    reserve, s.state.telemetry.disk.reserve_bytes = s.state.telemetry.disk.reserve_bytes, 1 << 62
    await s.state.telemetry.health.measure()
    assert (await s.upload(TINY)).status_code == 507
    assert (await s.http.get("/api/v1/health/")).status_code == 503
    s.state.telemetry.disk.reserve_bytes = reserve
    await s.state.telemetry.health.measure()


async def _requests_with_ids(s: Service) -> None:
    headers = {"X-Trace-ID": IDS["trace"]}
    for path in (f"jobs/{IDS['job']}", f"jobs/{IDS['job']}/result", IDS["image"], f"{IDS['image']}/direct?size=large"):
        assert (await s.http.get(f"/api/v1/images/{path}", headers=headers)).status_code == 404
    assert (await s.http.get(f"/storage/photos/{IDS['path']}", headers=headers)).status_code == 404
    assert (await s.http.post(f"/api/v1/images/jobs/{IDS['job']}")).status_code == 405
    assert (await s.http.get(f"/{IDS['path']}/nowhere")).status_code == 404
    assert (await s.http.request("BREW", f"/{IDS['path']}")).status_code == 404


async def _held(s: Service) -> list[Told]:
    """Jobs that wait, one of which then fails, since its file was changed; a request and a stream that wait for it."""
    s.state.jobs.queue.hold()
    damaged = await s.upload(make.jpeg())
    (s.settings.data / "staging" / damaged.json()["job_id"]).write_bytes(make.jpeg(seed=9))
    no_preview = await s.upload(make.encoded(make.photo(1700, 1300), "PNG", compress_level=1))
    status = f"{damaged.json()['status_url']}"
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: s.http.get(status, headers={"Prefer": "wait=30"}))
        group.start_soon(lambda: s.http.get(f"{status}/events"))
        waiting = await told_when(s, _one_of_them_a_stream)
        go_on(s)
    assert (await s.ended(damaged))["error_code"] == "source_damaged"
    assert (await s.ended(no_preview))["status"] == "completed"
    return [waiting]


def _one_of_them_a_stream(now: Told) -> bool:
    """The two that wait and the scrape itself; the stream counts once it has looked up its job."""
    return value(now, "http_requests_in_progress") == 3 and value(now, "http_event_streams_open") == 1


async def rendering(s: Service, job_id: str) -> int:
    """The pid of the worker that is amid the render of this job."""
    scratch = s.settings.data / "scratch"
    with within(WAIT_SECONDS):
        while not any(path.stat().st_size for path in scratch.glob(f"{job_id}.*/original.webp")):
            await anyio.sleep(0.005)
    lanes: list[Any] = [lane for run, lane in s.state.jobs.queue._running.items() if not run.is_preview]
    return int(lanes[0].pid)


async def _worker_killed(s: Service) -> list[Told]:
    accepted = await s.upload(make.encoded(make.photo(1000, 750).resize((2400, 1800)), "JPEG", quality=60))
    pid = await rendering(s, accepted.json()["job_id"])
    os.kill(pid, signal.SIGSTOP)
    active = await told_when(s, lambda now: value(now, "image_processing_jobs_active") == 1)
    os.kill(pid, signal.SIGKILL)
    job = await s.ended(accepted)
    assert (job["status"], job["attempts"]) == ("completed", 1), job
    return [active]


async def _storage_broken(s: Service) -> list[Told]:
    in_the_way = s.settings.storage.path / "other"
    in_the_way.write_bytes(b"")
    accepted = await s.upload(TINY, bucket="other")
    retrying = await told_when(s, lambda now: value(now, "job_queue_length", lane="retrying") == 1)
    in_the_way.unlink()
    assert (await s.ended(accepted))["status"] == "completed"
    return [retrying]


async def _spoilt(s: Service) -> None:
    """An image whose file is gone, one whose row is nonsense, one that is deleted."""
    image_id = (await s.completed(TINY))["image_id"]
    for path in s.settings.storage.path.rglob(f"{image_id}_large.webp"):
        path.unlink()
    assert (await s.http.get(f"/api/v1/images/{image_id}/direct?size=large")).status_code == 404
    await s.sql("UPDATE processing_jobs SET client_metadata = 'nonsense' WHERE image_id = ?", image_id)
    assert (await s.http.get(f"/api/v1/images/{image_id}/all")).status_code == 500
    assert (await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())).status_code == 200


async def _fetch_refused(s: Service) -> None:
    body = {"url": "https://127.0.0.1/a.jpg", "bucket": "photos"}
    assert (await s.http.post("/api/v1/images/fetch", json=body, headers=s.bearer())).status_code == 422


async def _row_lost(s: Service) -> None:
    """A whole upload of which the database knows nothing."""
    (s.settings.data / "staging" / IDS["job"]).write_bytes(TINY)
    await s.state.jobs.housekeeping.sweep()
    await s.state.telemetry.health.measure()


async def _cluster_away(s: Service) -> list[Told]:
    """A cluster that can't be reached, and that had a machine of another version."""
    metrics = s.state.telemetry.metrics.cluster
    older = Machine(name="m", version="0", fingerprint="", cage="", threads=1, megabytes=1, decoders={}, running=True)
    metrics.measured(LinkState("refused", "", "", "0" * 16, (older,), 1), 1, 1)
    for end in get_args(TicketEnd):
        metrics.ticket_ended(end)
    away = await told(s)
    metrics.measured(None, 1, 1)
    return [away]


async def _cage_broken(s: Service) -> list[Told]:
    """A worker that could not put all walls of its cage in force."""
    lanes: list[Any] = [lane for side in s.state.jobs.queue._sides for lane in side.lanes]
    before = lanes[0].posture
    lanes[0].posture = Posture("best", 0, seccomp=False, limits=True, problems=("seccomp: refused",))
    broken = await told(s)
    lanes[0].posture = before
    return [broken]


async def _lost(s: Service) -> None:
    """A job that is `processing` in the table, and that nothing works on."""
    job_id = (await s.completed(TINY))["job_id"]
    await s.sql("UPDATE processing_jobs SET status = 'processing', completed_at = NULL WHERE job_id = ?", job_id)
    await s.state.jobs.queue.settled(job_id)
    for _ in range(2):
        await s.state.jobs.watchdog.look()


async def _made_anew(s: Service) -> None:
    """A completed image, one of whose variants is rendered again."""
    job = await s.state.jobs.table.job((await s.completed(TINY))["job_id"])
    assert job is not None
    recipe = Recipe(job.recipe.variants[-1:], job.recipe.max_pixels, job.recipe.max_frames)
    assert await s.state.jobs.table.further.order(job, NewRender("focal", recipe, "variant", 50 << 20))
    s.state.jobs.queue.wake()
    await told_when(s, lambda now: value(now, "image_further_renders_total", kind="focal", status="made") == 1)


async def _webhook_down(s: Service) -> list[Told]:
    """Deliveries wait, are given up after three days, and the endpoint is switched off."""
    await s.completed(TINY)
    waiting = await told_when(s, lambda now: value(now, "webhook_deliveries_waiting", webhook="app") > 0)
    past = "2026-01-01T00:00:00+00:00"
    await s.sql("UPDATE webhook_outbox SET waiting_since = ?, next_attempt_at = ?", past, past)
    assert s.state.telling.webhooks is not None
    s.state.telling.webhooks.wake()
    given_up = {"webhook": "app", "outcome": "given_up"}
    await told_when(s, lambda now: value(now, "webhook_attempts_total", **given_up) > 0)
    await s.sql("UPDATE webhook_endpoints SET switched_off_at = ?", datetime.now(UTC).isoformat())
    return [waiting, await told(s)]


async def _over_quota(s: Service) -> None:
    before = s.state.intake._allowance
    s.state.intake._allowance = replace(before, quota=replace(before.quota, byte_limits=ByteLimits(per_user=1)))
    assert (await s.upload(TINY)).json()["code"] == "quota_exceeded"
    s.state.intake._allowance = before


async def _expired(s: Service) -> list[Told]:
    """An image whose time is over, and a clock that jumps then."""
    image_id = (await s.completed(TINY))["image_id"]
    await s.sql("UPDATE processing_jobs SET expires_at = '2020-01-01' WHERE image_id = ?", image_id)
    await s.state.jobs.expiry.sweep()
    clocks = s.state.jobs.clocks
    before = clocks._read
    clocks._read = lambda: replace(Reading.now(), wall=0.0)
    held = await told(s)
    clocks._read = before
    return [held]


async def _handed_out_and_erased(s: Service) -> list[Told]:
    """A key and a ticket of a user who is then erased, and a page of a list."""
    operator, images = "/api/v1/operator", "/api/v1/images"
    wanted = {"name": "n", "sub": "zelda", "permissions": ["image:read"]}
    key = (await s.http.post(f"{operator}/keys", json=wanted, headers=s.operator)).json()["key"]
    assert (await s.http.post(f"{images}/tickets", json={"bucket": "b"}, headers=s.bearer("zelda"))).status_code == 201
    assert (await s.http.get(images, headers={"Authorization": f"Bearer {key}"})).status_code == 200
    with_key = await told(s)
    hold = s.state.jobs.deletion_hold.held()
    await s.completed(TINY, user="zelda")
    with hold:  # files stay, and so does the erasure
        assert (await s.http.delete(f"{operator}/users/default-org/zelda", headers=s.operator)).status_code == 202
        running = await told(s)
    await told_when(s, lambda now: value(now, "people_erased_total") == 1)
    return [with_key, running]


async def _everything(folder: Path) -> list[Told]:
    secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    endpoint = {"name": "app", "url": "http://127.0.0.1:9/", "secret": secret, "allow_private": True}
    sections: dict[str, dict[str, Any]] = {
        "fetch": {"allowed_hosts": ["*"]},
        "images": {"webp_quality": 100, "keep_source": "as_is"},  # so that a variant takes more bytes than its source
        "jobs": {"retry_delay_seconds": RETRY_SECONDS},
        "webhooks": {"endpoints": [endpoint]},
    }
    async with with_workers(folder, **sections) as s:
        before = await told_when(s, lambda now: any(name == "image_storage_bytes" for name, _ in now))
        moments = [before]
        await _requests_with_ids(s)
        await _refusals(s)
        headers = {**s.bearer(), "Idempotency-Key": "once", "Content-Type": "image/jpeg"}
        for _ in range(2):
            answer = await s.http.post("/api/v1/images/upload?bucket=photos", content=TINY, headers=headers)
        image_id = (await s.ended(answer))["image_id"]
        assert len(await s.variant(image_id, "large")) > 100
        await s.completed(make.jpeg(640, 480, quality=60))
        moments += await _held(s)
        moments += await _worker_killed(s)
        moments += await _storage_broken(s)
        await _made_anew(s)
        await _spoilt(s)
        await _fetch_refused(s)
        await _row_lost(s)
        await _lost(s)
        moments += await _cluster_away(s)
        moments += await _cage_broken(s)
        moments += await _webhook_down(s)
        await _over_quota(s)
        moments += await _handed_out_and_erased(s)
        moments += await _expired(s)
        return [*moments, await told(s)]


@cache
def moments() -> list[Told]:
    """The metrics before, at some moments in between, and at the end: once for all processes of a run."""

    def make_moments() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            return pickle.dumps(asyncio.run(_everything(Path(folder))))

    found: list[Told] = pickle.loads(once("moments", make_moments))
    return found


@cache
def moved() -> set[Sample]:
    """What did not stay as it was, or came to be and is more than 0."""
    first, *later = moments()
    return {sample for now in later for sample in now if now[sample] != first.get(sample, 0)}
