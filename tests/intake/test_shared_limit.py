"""The rate limit of several instances that share a Redis: exact together, given back when an upload fails."""

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from structlog.testing import capture_logs

from fixtures import make
from imgsvc import testing
from imgsvc.intake import redis_connection
from imgsvc.intake.redis_limit import RedisRateLimit
from imgsvc.jobs.table.model import as_text, now
from tests.conftest import Service, service
from tests.support.redis_server import RedisServer
from tests.support.server_process import InlineServer, ServerProcess, until
from tests.support.speed import within

TINY = make.tiny()
UPLOAD = "/api/v1/images/upload"
KEY = "imgsvc:uploads:11:default-org:alice"
LIMIT_SECONDS = 10


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def used(redis: RedisServer) -> int:
    return int(redis.ask("HGET", KEY, "used") or 0)


@asynccontextmanager
async def sharing(
    redis: RedisServer, folder: Path, max_uploads: int, minutes: float = 60, timeout_ms: float = 5000
) -> AsyncIterator[Service]:
    """A service that accepts and renders nothing. It waits long for Redis, since this machine may be busy."""
    limit = {"max_uploads": max_uploads, "window_minutes": minutes}
    shared, many = {"url": redis.url, "timeout_ms": timeout_ms}, {"max_open_per_user": 1000}
    settings = testing.settings_in(folder, rate_limit=limit, redis=shared, uploads=many)
    async with testing.serving(settings) as (app, http):
        del http.headers["Authorization"]
        s = Service(app, settings, http)
        s.state.jobs.queue.hold()
        yield s


def redis_limit(s: Service) -> RedisRateLimit:
    assert s.state.rate_limiter.redis is not None
    return s.state.rate_limiter.redis


async def when(true: Callable[[], Any]) -> None:
    with within(LIMIT_SECONDS):
        while not true():
            await anyio.sleep(0.005)


async def at_once(services: list[Service], uploads: int) -> list[httpx.Response]:
    return list(await asyncio.gather(*(services[n % len(services)].upload(TINY) for n in range(uploads))))


async def rows(s: Service) -> int:
    return int((await s.sql("SELECT count(*) FROM processing_jobs"))[0][0])


@pytest.mark.parametrize("instances", [1, 2])
async def test_200_at_once_at_a_limit_of_50(redis: RedisServer, tmp_path: Path, instances: int) -> None:
    async with sharing(redis, tmp_path / "a", 50) as first, sharing(redis, tmp_path / "b", 50) as second:
        services = [first, second][:instances]
        answers = await at_once(services, 200)
        assert Counter(answer.status_code for answer in answers) == {202: 50, 429: 150}
        assert used(redis) == 50
        assert sum([await rows(s) for s in services]) == 50
        assert sum([len(s.staged()) for s in services]) == 50
        refused = [answer for answer in answers if answer.status_code == 429]
        assert {answer.headers["X-RateLimit-Remaining"] for answer in refused} == {"0"}
        assert {(answer.json()["limit"], answer.json()["used"]) for answer in refused} == {(50, 50)}
        other = await second.upload(TINY, user="bob")
        assert (other.status_code, other.headers["X-RateLimit-Remaining"]) == (202, "49")
        assert all(redis_limit(s).connection.up for s in services)


async def test_headers_tell_of_the_shared_window(redis: RedisServer, tmp_path: Path) -> None:
    async with sharing(redis, tmp_path / "a", 3) as a, sharing(redis, tmp_path / "b", 3) as b:
        answers = [await s.upload(TINY) for s in (a, b, a, b)]
        assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
        ends = sorted(datetime.fromisoformat(answer.headers["X-RateLimit-Reset"]) for answer in answers)
        assert (ends[-1] - ends[0]).total_seconds() < 1  # an own window begins a moment after the shared one
        left = (ends[0] - datetime.now(UTC)).total_seconds()
        assert 3590 < left < 3600
        assert left <= int(answers[3].headers["Retry-After"]) <= left + 5
        assert await b.sql("SELECT upload_count FROM upload_rate_limits") == [(1,)]


async def test_window_ends_for_all(redis: RedisServer, tmp_path: Path) -> None:
    """The one that took no place has no window of its own in the way."""
    async with sharing(redis, tmp_path / "a", 1, 0.01) as a, sharing(redis, tmp_path / "b", 1, 0.01) as b:
        assert (await a.upload(TINY)).status_code == 202
        refused = await b.upload(TINY)
        assert refused.status_code == 429
        with within(LIMIT_SECONDS):
            while (answer := await b.upload(TINY)).status_code == 429:
                await anyio.sleep(0.02)
        assert answer.status_code == 202
        assert datetime.now(UTC) >= datetime.fromisoformat(refused.headers["X-RateLimit-Reset"])
        assert (await a.upload(TINY)).status_code == 429


async def raw(s: Service, **headers: str) -> httpx.Response:
    return await s.http.post(
        UPLOAD, params={"bucket": "b"}, content=TINY, headers={"Content-Type": "image/jpeg", **s.bearer(), **headers}
    )


async def test_what_is_rejected_for_its_bytes_takes_no_place(redis: RedisServer, tmp_path: Path) -> None:
    async with sharing(redis, tmp_path, 5) as s:
        for data in (b"only words", TINY[:300]):
            assert (await s.upload(data)).status_code in (415, 422)
        assert redis.ask("EXISTS", KEY) == 0


async def test_repeated_upload_takes_no_place(redis: RedisServer, tmp_path: Path) -> None:
    async with sharing(redis, tmp_path, 1) as s:
        first, again = [await raw(s, **{"Idempotency-Key": "k"}) for _ in range(2)]
        assert again.json() == first.json()
        assert again.headers["Idempotency-Replayed"] == "true"
        assert used(redis) == 1


async def test_repeated_upload_hears_of_the_shared_window(redis: RedisServer, tmp_path: Path) -> None:
    async with sharing(redis, tmp_path / "a", 5) as a, sharing(redis, tmp_path / "b", 5) as b:
        first = await raw(a, **{"Idempotency-Key": "k"})
        assert [(await raw(b)).status_code for _ in range(4)] == [202] * 4
        again = await raw(a, **{"Idempotency-Key": "k"})
        assert (again.json(), again.headers["X-RateLimit-Remaining"]) == (first.json(), "0")


@pytest.mark.parametrize("bucket", ["b", "another"])
async def test_place_goes_back_when_the_key_was_taken_meanwhile(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    async with sharing(redis, tmp_path, 5) as s:
        assert (await raw(s, **{"Idempotency-Key": "k"})).status_code == 202

        async def not_yet(*_: str) -> bool:
            return False

        monkeypatch.setattr(s.state.jobs.table, "has_key", not_yet)
        headers = {"Content-Type": "image/jpeg", **s.bearer(), "Idempotency-Key": "k"}
        answer = await s.http.post(UPLOAD, params={"bucket": bucket}, content=TINY, headers=headers)
        assert answer.status_code == (202 if bucket == "b" else 422)
        await redis_limit(s).connection.flush(LIMIT_SECONDS)
        assert used(redis) == 1


async def test_place_goes_back_when_this_instance_has_none(redis: RedisServer, tmp_path: Path) -> None:
    """Its own table is the law: here Redis has forgotten, as after a restart."""
    admitted, go_on = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield TINY[:600]
        admitted.set()
        await go_on.wait()
        yield TINY[600:]

    async with sharing(redis, tmp_path, 1) as s:
        headers = {"Content-Type": "image/jpeg", **s.bearer()}
        slow = asyncio.create_task(s.http.post(UPLOAD, params={"bucket": "b"}, content=body(), headers=headers))
        await admitted.wait()
        window = f"INSERT INTO upload_rate_limits VALUES ('default-org', 'alice', '{as_text(now())}', 1)"
        await s.sql(window)  # as of an upload that came in before this service was restarted
        redis.ask("FLUSHALL")
        go_on.set()
        assert (await slow).status_code == 429
        await redis_limit(s).connection.flush(LIMIT_SECONDS)
        assert redis.ask("EXISTS", KEY) == 0


REFUSE = "CREATE TRIGGER refuse BEFORE INSERT ON processing_jobs BEGIN SELECT * FROM nowhere; END"


async def test_place_goes_back_when_the_job_is_not_recorded(redis: RedisServer, tmp_path: Path) -> None:
    """Also when the service stops right afterwards."""
    async with sharing(redis, tmp_path, 5) as s:
        assert (await s.upload(TINY)).status_code == 202
        await s.sql(REFUSE)
        answers = await at_once([s], 4)
        assert {answer.status_code for answer in answers} == {503}
    assert used(redis) == 1


async def test_what_waits_to_be_given_back_at_a_stop_goes_out(redis: RedisServer, tmp_path: Path) -> None:
    async with sharing(redis, tmp_path, 5) as s:
        places = [
            await redis_limit(s).reserve("default-org", "alice", s.state.intake.allowance.quota) for _ in range(2)
        ]
        redis.pause()
        for place in places:
            assert place is not None
            redis_limit(s).release(place)
            await when(lambda: redis_limit(s).connection._under_way)
        threading.Timer(0.3, redis.resume).start()
    assert redis.ask("EXISTS", KEY) == 0


@asynccontextmanager
async def database_locked(s: Service) -> AsyncIterator[None]:
    """The writer waits meanwhile."""
    path = s.settings.database.path
    db = sqlite3.connect(path, isolation_level=None, timeout=LIMIT_SECONDS, check_same_thread=False)
    await asyncio.to_thread(db.execute, "BEGIN IMMEDIATE")  # a transaction that stands open ends on this loop
    try:
        yield
        if db.in_transaction:
            db.execute("COMMIT")
    finally:
        db.close()


@pytest.mark.parametrize("recorded", [True, False])
async def test_cancelled_while_the_job_is_recorded(redis: RedisServer, tmp_path: Path, recorded: bool) -> None:
    async with sharing(redis, tmp_path, 5) as s:
        if not recorded:
            await s.sql(REFUSE)
        async with database_locked(s):
            upload = asyncio.create_task(s.upload(TINY))
            await when(lambda: s.state.intake._rate_limiter._settling)
            upload.cancel()
            await asyncio.wait({upload})
            assert upload.cancelled()
            assert used(redis) == 1
        await when(lambda: not s.state.intake._rate_limiter._settling)
        await redis_limit(s).connection.flush(LIMIT_SECONDS)
        assert used(redis) == await rows(s) == int(recorded)


async def test_cancelled_while_the_place_is_reserved(redis: RedisServer, tmp_path: Path) -> None:
    async with sharing(redis, tmp_path, 5) as s:
        connection = redis_limit(s).connection
        admitted, go_on = asyncio.Event(), asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield TINY
            admitted.set()
            await go_on.wait()

        headers = {"Content-Type": "image/jpeg", **s.bearer()}
        upload = asyncio.create_task(s.http.post(UPLOAD, params={"bucket": "b"}, content=body(), headers=headers))
        await admitted.wait()
        redis.pause()
        go_on.set()
        await when(lambda: connection._under_way)
        upload.cancel()
        await asyncio.wait({upload})
        redis.resume()
        await connection.flush(LIMIT_SECONDS)
        assert (redis.ask("EXISTS", KEY), await rows(s), s.staged()) == (0, 0, [])


async def test_uploads_go_on_while_redis_is_killed_and_comes_back_empty(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_connection, "TRIAL_SECONDS", 0.01)
    async with sharing(redis, tmp_path, 40, timeout_ms=1000) as s:  # else a busy machine is an outage too
        with capture_logs() as logs:
            uploads = [asyncio.create_task(s.upload(TINY)) for _ in range(30)]
            await asyncio.wait(uploads, return_when=asyncio.FIRST_COMPLETED)
            redis.kill()
            during = await at_once([s], 6)
            assert [answer.status_code for answer in during] == [202] * 6
            assert {upload.result().status_code for upload in uploads if await asyncio.wait([upload])} == {202}
            redis.start()
            await when(lambda: redis_limit(s).connection.up)
            after = await at_once([s], 10)
        assert Counter(answer.status_code for answer in after) == {202: 4, 429: 6}
        assert await rows(s) == 40
        await redis_limit(s).connection.flush(LIMIT_SECONDS)
        assert used(redis) == 4
        events = [line["event"] for line in logs if line["event"].startswith("redis")]
        assert events == ["redis_unavailable", "redis_available"]


async def test_health_and_dashboard_tell_the_truth(redis: RedisServer, tmp_path: Path) -> None:
    async def told(s: Service) -> tuple[dict[str, Any], dict[str, Any]]:
        await s.state.telemetry.health.measure()
        s.app.state.snapshot = None
        health = (await s.http.get("/api/v1/health")).json()
        return health, (await s.http.get("/dashboard/data", headers=s.operator)).json()

    async with sharing(redis, tmp_path, 5, timeout_ms=100) as s:
        health, shown = await told(s)
        assert health["checks"]["redis"]["status"] == health["status"] == "healthy"
        lengths = {"celery": 0}
        info = shown["redis"].pop("info")
        assert shown["redis"] == {"status": "healthy", "connected": True, "queue_lengths": lengths}
        assert info.keys() == {"version", "used_memory", "clients", "uptime"} and all(info.values())
        assert shown["configuration"]["redis"] == {"url": "configured", "timeout_ms": "100.0", "prefix": "imgsvc:"}
        redis.pause()
        assert (await s.upload(TINY)).status_code == 202
        health, shown = await told(s)
        assert health["checks"]["redis"]["status"] == health["status"] == "degraded"
        assert shown["redis"] == {"status": "down", "connected": False, "info": {}, "queue_lengths": {"celery": 1}}


async def test_without_redis_nothing_speaks_of_it(tmp_path: Path) -> None:
    async with service(tmp_path) as s:
        assert "redis" not in (await s.http.get("/api/v1/health")).json()["checks"]
        shown = (await s.http.get("/dashboard/data", headers=s.operator)).json()
        assert shown["redis"] == {"status": "disabled", "connected": False, "info": {}, "queue_lengths": {"celery": 0}}
        assert shown["configuration"]["redis"]["url"] == "(empty)"


@pytest.mark.process
def test_place_of_a_killed_process_is_lost_and_not_given_twice(redis: RedisServer, tmp_path: Path) -> None:
    patient = {"IMGSVC_REDIS_TIMEOUT_MS": "5000"}  # as in `sharing`: at 50 ms a busy machine counts alone
    more = {"REDIS_URL": redis.url, "RATE_LIMIT_MAX_UPLOADS": "2", **patient}
    with InlineServer(tmp_path, **more) as server:
        db = sqlite3.connect(tmp_path / "data" / "imgsvc.db", isolation_level=None, timeout=LIMIT_SECONDS)
        db.execute("BEGIN IMMEDIATE")
        sender = threading.Thread(target=_upload_and_lose, args=(server,))
        sender.start()
        until(lambda: used(redis) == 1)
        server.process.kill()
        server.ended()
        sender.join(LIMIT_SECONDS)
        db.execute("ROLLBACK")
        db.close()
        server.start()
        assert [server.upload(TINY).status_code for _ in range(2)] == [202, 429]


def _upload_and_lose(server: ServerProcess) -> None:
    with pytest.raises(httpx.TransportError):
        server.upload(TINY)
