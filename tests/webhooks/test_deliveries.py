"""Webhooks in process, with a real receiver: signed, in order for each image, at least once."""

import json
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from fixtures import make
from imgsvc.jobs.table.model import as_text, now
from imgsvc.jobs.table.sql import QUERIES
from imgsvc.webhooks import pauses, sender
from tests.conftest import WAIT_SECONDS, Service, service
from tests.support.papers import PAGES
from tests.support.receiver import NEXT_SECRET, SECRET, Received, Receiver

TINY = make.tiny()
GUIDE = next(page for page in PAGES if page.path.name == "webhooks.md")
EXAMPLE: dict[str, Any] = json.loads(next(block.text for block in GUIDE.blocks if block.language == "json"))
READY, COMPLETED, FAILED, DELETED = "image.ready", "image.completed", "image.failed", "image.deleted"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as one:
        yield one


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 0.05)


def telling(
    folder: Path, *receivers: dict[str, Any], **sections: dict[str, Any]
) -> AbstractAsyncContextManager[Service]:
    return service(folder, webhooks={"endpoints": list(receivers)}, **sections)


async def settled(s: Service, name: str = "app", waiting: int = 0) -> None:
    """Until so many rows wait for the endpoint, which the table counts."""
    with anyio.fail_after(WAIT_SECONDS):
        while (await s.state.telling.table.endpoints())[name].waiting != waiting:
            await anyio.sleep(0.01)


async def attempts(s: Service, name: str = "app") -> list[dict[str, Any]]:
    answer = await s.http.get(f"/api/v1/operator/webhooks/{name}/attempts", headers=s.operator)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["attempts"])


async def test_each_event_arrives_signed_and_in_order(receiver: Receiver, tmp_path: Path) -> None:
    async with telling(tmp_path, receiver.settings(), service={"public_url": "https://img.example.org"}) as s:
        job = await s.completed(TINY, metadata='{"order": 7}')
        ready, completed = await receiver.gets(2)
        image = f"/api/v1/images/{job['image_id']}"
        assert (await s.http.delete(image, headers=s.bearer())).status_code == 200
        _, _, deleted = await receiver.gets(3)
        await settled(s)
        assert [one.type for one in (ready, completed, deleted)] == [READY, COMPLETED, DELETED]
        for one in (ready, completed, deleted):
            assert Verifier(SECRET).verify(one.body, one.headers) == one.json
            assert one.headers["content-type"] == "application/json"
            assert one.json["data"]["image_id"] == job["image_id"] and one.json["data"]["job_id"] == job["job_id"]
        assert len({one.id for one in receiver.received}) == 3
        data = completed.json["data"]
        assert [one.keys() for one in (completed.json, data)] == [one.keys() for one in (EXAMPLE, EXAMPLE["data"])]
        assert data["status"] == "completed" and data["client_metadata"] == {"order": 7} and data["bucket"] == "photos"
        assert set(data["urls"]) == set(data["ready"]) == {"original", "large", "medium", "thumbnail"}
        assert data["urls"]["thumbnail"].startswith("https://img.example.org/storage/")
        assert deleted.json["data"] == {"image_id": job["image_id"], "job_id": job["job_id"]}
        assert "thumbnail" in ready.json["data"]["ready"]
        assert [one["status"] for one in await attempts(s)] == [204, 204, 204]


async def test_failed_job(receiver: Receiver, tmp_path: Path) -> None:
    async with telling(tmp_path, receiver.settings(events=[FAILED])) as s:
        s.state.jobs.queue.hold()
        accepted = await s.upload(TINY)
        (s.settings.data / "staging" / accepted.json()["job_id"]).write_bytes(make.jpeg(seed=9))
        s.state.jobs.queue._stopping = False
        s.state.jobs.queue.wake()
        (one,) = await receiver.gets(1)
        assert (one.type, one.json["data"]["error_code"]) == (FAILED, "source_damaged")


async def test_a_wrong_secret_does_not_verify(receiver: Receiver, tmp_path: Path) -> None:
    async with telling(tmp_path, receiver.settings()) as s:
        await s.completed(TINY)
        one, _ = await receiver.gets(2)
        with pytest.raises(WebhookVerificationError):
            Verifier(NEXT_SECRET).verify(one.body, one.headers)
        with pytest.raises(WebhookVerificationError):
            Verifier(SECRET).verify(one.body + b" ", one.headers)


async def test_both_secrets_sign_while_one_replaces_the_other(receiver: Receiver, tmp_path: Path) -> None:
    async with telling(tmp_path, receiver.settings(secret=f"{NEXT_SECRET} {SECRET}")) as s:
        await s.completed(TINY)
        one, _ = await receiver.gets(2)
        for secret in (SECRET, NEXT_SECRET):
            assert Verifier(secret).verify(one.body, one.headers)["type"] == READY


async def test_events_and_buckets_are_chosen(receiver: Receiver, tmp_path: Path) -> None:
    chosen = [
        receiver.settings("completed", events=[COMPLETED]),
        receiver.settings("private", buckets=["private", "other"]),
    ]
    async with telling(tmp_path, *chosen) as s:
        await s.completed(TINY)
        await s.completed(make.tiny(seed=2), bucket="private")
        found = await receiver.gets(4)
        for name in ("completed", "private"):
            await settled(s, name)
    assert sorted((one.type, one.json["data"]["bucket"]) for one in found) == [
        (COMPLETED, "photos"),
        (COMPLETED, "private"),
        (COMPLETED, "private"),
        (READY, "private"),
    ]


async def test_the_next_event_of_an_image_waits_and_other_images_do_not(tmp_path: Path) -> None:
    stubborn: list[str] = []

    def answer(one: Received) -> int:
        if not stubborn:
            stubborn.append(one.json["data"]["image_id"])
        return 500 if stubborn[0] == one.json["data"]["image_id"] and len(mine(stubborn[0])) < 4 else 200

    def mine(image_id: str) -> list[Received]:
        return [one for one in receiver.received if one.json["data"]["image_id"] == image_id]

    with Receiver(answer) as receiver:
        async with telling(tmp_path, receiver.settings()) as s:
            await s.completed(TINY)
            await receiver.gets(1)
            await s.completed(make.tiny(seed=2))
            await settled(s)
            first = mine(stubborn[0])
            assert [one.type for one in first] == [READY] * 4 + [COMPLETED]
            assert len({one.id for one in first}) == 2  # the same id at each attempt
            others = [one for one in receiver.received if one not in first]
            assert [one.type for one in others] == [READY, COMPLETED]
            log = [one for one in await attempts(s) if one["image_id"] == stubborn[0]]
            assert [one["attempt"] for one in reversed(log)] == [1, 2, 3, 4, 1]


async def test_fresh_urls_at_each_attempt_where_reading_is_private(tmp_path: Path) -> None:
    answers = iter([500])
    with Receiver(lambda _: next(answers, 200)) as receiver:
        private = {"signed_urls": True}
        async with telling(tmp_path, receiver.settings(events=[COMPLETED]), storage=private) as s:
            await s.completed(TINY)
            first, second = await receiver.gets(2)
            assert first.id == second.id
            url = second.json["data"]["urls"]["thumbnail"]
            assert (await s.http.get(url)).status_code == 200 and "signature=" in url


async def test_gone_switches_the_name_off_until_it_is_enabled(tmp_path: Path) -> None:
    with Receiver(lambda _: 410) as receiver:
        async with telling(tmp_path, receiver.settings()) as s:
            await s.completed(TINY)
            with anyio.fail_after(WAIT_SECONDS):
                while not (await s.state.telling.table.endpoints())["app"].switched_off_at:
                    await anyio.sleep(0.01)
            await s.state.telemetry.health.measure()
            check = s.state.telemetry.health.checks()["webhooks"]
            assert check.status == "degraded" and "410" in check.detail
            count = len(receiver.received)
            await s.completed(make.tiny(seed=2))  # no row for a name that is switched off
            assert len(receiver.received) == count
            receiver.answer = lambda _: 200
            path = "/api/v1/operator/webhooks/app/enable"
            assert (await s.http.post(path, headers=s.operator)).json() == {"name": "app", "was_off": True}
            await settled(s)
            assert [one.type for one in receiver.received[count:]] in ([READY], [READY, COMPLETED])
            events = [row[0] for row in await s.sql("SELECT event_type FROM image_upload_events")]
            assert {"webhook_switched_off", "webhook_switched_on"} <= set(events)


async def test_given_up_after_three_days_and_replayed(tmp_path: Path) -> None:
    with Receiver(lambda _: 500) as receiver:
        async with telling(tmp_path, receiver.settings(events=[COMPLETED])) as s:
            await s.completed(TINY)
            await receiver.gets(1)
            past = as_text(now() - timedelta(days=3))
            with anyio.fail_after(WAIT_SECONDS):
                while (await s.state.telling.table.endpoints())["app"].waiting:
                    await s.sql("UPDATE webhook_outbox SET waiting_since = ?", past)
                    await anyio.sleep(0.02)
            assert (await attempts(s))[0]["state"] == "given_up"
            receiver.answer = lambda _: 200
            replay = "/api/v1/operator/webhooks/app/replay"
            count = len(receiver.received)
            answer = await s.http.post(replay, json={}, headers=s.operator)
            assert (answer.status_code, answer.json()) == (202, {"replayed": 1})
            again = (await receiver.gets(count + 1))[-1]
            assert again.id == receiver.received[0].id
            await settled(s)
            assert (await s.http.post(replay, json={}, headers=s.operator)).json() == {"replayed": 0}
            body = {"delivered": True, "since": datetime.now(UTC).isoformat()}
            assert (await s.http.post(replay, json=body, headers=s.operator)).json() == {"replayed": 0}
            assert (await s.http.post(replay, json={"delivered": True}, headers=s.operator)).json() == {"replayed": 1}
            await receiver.gets(count + 2)


async def test_too_many_waiting_give_up_the_oldest(tmp_path: Path) -> None:
    with Receiver(lambda _: 500) as receiver:
        async with telling(tmp_path, receiver.settings(events=[COMPLETED])) as s:
            await s.sql("UPDATE webhook_endpoints SET most_waiting = 2")
            jobs = [await s.completed(make.tiny(seed=seed)) for seed in range(4)]
            state = (await s.state.telling.table.endpoints())["app"]
            assert state.waiting == 2 and state.overflowed_at
            rows = await s.sql("SELECT image_id FROM webhook_outbox WHERE state = 'waiting' ORDER BY id")
            assert [row[0] for row in rows] == [job["image_id"] for job in jobs[2:]]
            await s.state.telemetry.health.measure()
            assert "more than 2 waited" in s.state.telemetry.health.checks()["webhooks"].detail


async def test_a_row_is_committed_with_its_event_or_not_at_all(receiver: Receiver, tmp_path: Path) -> None:
    async with telling(tmp_path, receiver.settings(url="http://127.0.0.1:9/", events=[COMPLETED])) as s:
        await s.sql(
            "CREATE TRIGGER refused BEFORE INSERT ON webhook_outbox WHEN (SELECT count(*) FROM webhook_outbox) = 0"
            " BEGIN SELECT RAISE(ABORT, 'once'); END"
        )
        accepted = await s.upload(TINY)
        with anyio.fail_after(WAIT_SECONDS):
            while "once" not in (await s.job(accepted.json()["job_id"]))["status"] + await _log_of(s):
                await anyio.sleep(0.01)
        assert (await s.job(accepted.json()["job_id"]))["status"] != "completed"
        await s.sql("DROP TRIGGER refused")
        assert (await s.ended(accepted))["status"] == "completed"
        assert await s.sql("SELECT count(*) FROM webhook_outbox") == [(1,)]


async def _log_of(s: Service) -> str:
    """Whether a run's end was refused: its row is still `processing` though its files are there."""
    return "once" if len(s.stored()) == 4 else ""


async def test_test_from_the_operator(receiver: Receiver, tmp_path: Path) -> None:
    async with telling(tmp_path, receiver.settings()) as s:
        answer = (await s.http.post("/api/v1/operator/webhooks/app/test", headers=s.operator)).json()
        assert (answer["ok"], answer["status"], answer["reason"]) == (True, 204, None)
        (one,) = receiver.received
        assert Verifier(SECRET).verify(one.body, one.headers)["type"] == "webhook.test"
        receiver.answer = lambda _: None
        answer = (await s.http.post("/api/v1/operator/webhooks/app/test", headers=s.operator)).json()
        assert (answer["ok"], answer["status"], answer["reason"]) == (False, None, "answer")
        for path in ("test", "replay", "enable"):
            more: dict[str, Any] = {"json": {}} if path == "replay" else {}
            answer = await s.http.post(f"/api/v1/operator/webhooks/other/{path}", headers=s.operator, **more)
            assert (answer.status_code, answer.json()["code"]) == (404, "webhook_not_found")
        listed = (await s.http.get("/api/v1/operator/webhooks", headers=s.operator)).json()["webhooks"]
        assert [(one["name"], one["waiting"]) for one in listed] == [("app", 0)]


async def test_private_addresses_are_refused_by_default(tmp_path: Path) -> None:
    with Receiver() as receiver:
        url = receiver.url.replace("http:", "https:")
        async with telling(tmp_path, {"name": "app", "url": url, "secret": SECRET}) as s:
            answer = (await s.http.post("/api/v1/operator/webhooks/app/test", headers=s.operator)).json()
            assert (answer["ok"], answer["reason"]) == (False, "address")
        assert receiver.received == []


async def test_nothing_personal_is_kept_or_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Erased between two attempts: nothing of the person is left in the tables or the log."""
    with Receiver(lambda _: 500) as receiver:
        async with telling(tmp_path, receiver.settings(events=[COMPLETED])) as s:
            job = await s.completed(TINY, user="personal-name", metadata='{"who": "personal-name"}')
            await receiver.gets(1)
            headers = s.bearer("personal-name")
            assert (await s.http.delete(f"/api/v1/images/{job['image_id']}", headers=headers)).status_code == 200
            count = len(receiver.received)
            last = (await receiver.gets(count + 2))[-1]
            assert last.json["data"] == {"image_id": job["image_id"], "job_id": job["job_id"]}
            for table in ("webhook_outbox", "webhook_attempts", "webhook_endpoints"):
                assert "personal-name" not in str(await s.sql(f"SELECT * FROM {table}"))
    said = capsys.readouterr()
    assert "webhook_not_delivered" not in said.out + said.err or "personal-name" not in said.out + said.err
    assert SECRET not in said.out + said.err


async def test_names_that_are_no_longer_configured(receiver: Receiver, tmp_path: Path) -> None:
    """What waits for a name stays, and is sent when the name comes back, whatever its address then is."""
    async with telling(tmp_path, receiver.settings(url="http://127.0.0.1:9/hook")) as s:
        await s.completed(TINY)
        await settled(s, waiting=2)
    async with telling(tmp_path) as s:
        assert s.state.telling.webhooks is None
        await s.completed(make.tiny(seed=2))
        assert (await s.state.telling.table.endpoints())["app"].waiting == 2
        assert receiver.received == []
    async with telling(tmp_path, receiver.settings()) as s:
        await s.sql("UPDATE webhook_outbox SET next_attempt_at = occurred_at")
        s.state.telling.webhooks.wake()  # type: ignore[union-attr]
        assert [one.type for one in await receiver.gets(2)] == [READY, COMPLETED]


async def test_old_rows_are_dropped_and_what_nobody_sends_is_given_up(receiver: Receiver, tmp_path: Path) -> None:
    async with telling(tmp_path, receiver.settings(url="http://127.0.0.1:9/hook")) as s:
        await s.completed(TINY)
        await settled(s, waiting=2)
    async with telling(tmp_path) as s:
        for days, left in ((2, ["waiting"] * 2), (4, ["given_up"] * 2)):
            await s.sql("UPDATE webhook_outbox SET waiting_since = ?", as_text(now() - timedelta(days=days)))
            await s.state.telling.table.tidy()
            assert [row[0] for row in await s.sql("SELECT state FROM webhook_outbox")] == left
        assert (await s.state.telling.table.endpoints())["app"].waiting == 0
        long_ago = as_text(now() - timedelta(days=31))
        await s.sql("UPDATE webhook_outbox SET ended_at = ?", long_ago)
        await s.sql("UPDATE webhook_attempts SET started_at = ?", long_ago)
        await s.state.jobs.housekeeping.sweep()
        assert await s.sql("SELECT count(*) FROM webhook_outbox") == [(0,)]
        assert await s.sql("SELECT count(*) FROM webhook_attempts") == [(0,)]


@pytest.mark.parametrize(
    "query", ["deliveries_due", "next_delivery", "webhook_endpoints", "delivery_log", "drop_deliveries"]
)
async def test_statements_go_by_indexes(tmp_path: Path, query: str) -> None:
    values = {"webhook": "app", "now": "2026", "limit": 8, "before": "2026"}
    async with telling(tmp_path) as s:
        statement = QUERIES[query]
        for name in sorted(values, key=len, reverse=True):
            statement = statement.replace(f":{name}", repr(values[name]))
        plan = [row[3] for row in await s.sql(f"EXPLAIN QUERY PLAN {statement}")]
    scans = [line for line in plan if line.startswith("SCAN") and "endpoint" not in line]
    assert scans == [] and not any("TEMP B-TREE" in line for line in plan), plan


def test_pauses_grow_for_three_days() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    moment, attempts, before = start, 0, 0.0
    while due := pauses.next_attempt(attempts := attempts + 1, start, moment):
        pause = (due - moment).total_seconds()
        assert pause > before * 0.6
        before, moment = pause, due
    assert timedelta(days=2, hours=16) < moment - start < timedelta(days=3)
    assert 15 <= attempts <= 40


def test_jitter() -> None:
    assert pauses.pause_seconds(1, 0) == pytest.approx(0.04) and pauses.pause_seconds(1, 1) == pytest.approx(0.06)
    assert pauses.pause_seconds(1000, 0.5) == pauses.LONGEST_SECONDS


def test_limits_are_those_of_the_contract() -> None:
    assert (sender.ATTEMPT_SECONDS, sender.ANSWER_BYTES) == (15, 64 * 1024)
