"""Erasing a person: what is refused meanwhile, what is left, and that it is taken up again after a kill."""

import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from fixtures import make
from imgsvc.jobs.erasing import Erasing
from imgsvc.jobs.table import erased_rows
from imgsvc.jobs.table.webhook_table import Attempt
from imgsvc.webhooks import pauses
from tests.conftest import WAIT_SECONDS, Service, Starter, service
from tests.support.receiver import Received, Receiver
from tests.support.redis_server import RedisServer
from tests.support.speed import within

IMAGES, OPERATOR = "/api/v1/images", "/api/v1/operator"
PERSON, ORG = "zelda.fitzgerald@example.org", "the org/ß"
TINY = make.tiny()
JPEG = {"Content-Type": "image/jpeg"}
NAMES = (PERSON, "zelda", "private-name.jpg", "secret-meta", "zelda-trace", "folder-of-zelda")


def person(s: Service, **more: Any) -> dict[str, str]:
    return s.bearer(PERSON, org_id=ORG, **more)


async def uploaded(s: Service, data: bytes = TINY) -> httpx.Response:
    files = {"file": ("private-name.jpg", data, "image/jpeg")}
    fields = {"bucket": "folder-of-zelda", "metadata": '{"m": "secret-meta"}'}
    headers = person(s) | {"X-Trace-ID": "zelda-trace"}
    return await s.http.post(f"{IMAGES}/upload", data=fields, files=files, headers=headers)


async def erase(s: Service) -> dict[str, Any]:
    response = await s.http.delete(f"{OPERATOR}/users/{'the%20org%2F%C3%9F'}/{PERSON}", headers=s.operator)
    assert response.status_code == 202, response.text
    report: dict[str, Any] = response.json()
    return report


async def ended(s: Service, report: dict[str, Any]) -> dict[str, Any]:
    with within(WAIT_SECONDS):
        while report["state"] == "running":
            await anyio.sleep(0.01)
            found = await s.http.get(f"{OPERATOR}/erasures/{report['erasure_id']}", headers=s.operator)
            report = found.json()
    return report


def dump(database: Path) -> str:
    with closing(sqlite3.connect(database)) as db:
        return "\n".join(db.iterdump())


def names_in(text: str) -> list[str]:
    return [name for name in (*NAMES, hashlib.sha256(TINY).hexdigest()) if name.lower() in text.lower()]


async def everything_of(s: Service) -> None:
    """Images, a key, a ticket, a denial, and an upload that was set aside."""
    await s.ended(await uploaded(s))
    await s.ended(await uploaded(s, make.jpeg(40, 30)))
    key = {"name": "n", "sub": PERSON, "org": ORG}
    assert (await s.http.post(f"{OPERATOR}/keys", json=key, headers=s.operator)).status_code == 201
    assert (await s.http.post(f"{IMAGES}/tickets", json={"bucket": "b"}, headers=person(s))).status_code == 201
    assert (await s.http.get(f"{IMAGES}?scope=org", headers=person(s))).status_code == 403
    orphaned = s.settings.data / "orphaned"
    orphaned.mkdir()
    (orphaned / "00000000-0000-4000-8000-000000000001").write_bytes(TINY)
    (orphaned / "00000000-0000-4000-8000-000000000002").write_bytes(make.jpeg(8, 8))


async def test_nothing_of_the_person_is_left(start: Starter, capfd: pytest.CaptureFixture[str]) -> None:
    async with start() as s:
        await everything_of(s)
        kept = await s.completed(make.jpeg(50, 40))
        capfd.readouterr()
        report = await ended(s, await erase(s))
        assert report["counts"] == {
            "images": 2,
            "deliveries": 0,
            "files": 8,
            "set_aside": 1,
            "keys": 1,
            "tickets": 1,
            "rate_limit_windows": 1,
            "events": 1,
        }
        person_hash = hashlib.sha256(bytes.fromhex(report["salt"]) + json.dumps([ORG, PERSON]).encode()).hexdigest()
        assert report["person"] == person_hash and report["not_reached"]
        assert names_in(dump(s.settings.database.path)) == []
        assert names_in("\n".join(capfd.readouterr())) == []
        recorded = (s.settings.data / "revocations.jsonl").read_text()
        assert names_in(recorded) == [] and recorded.count(report["erasure_id"]) == 1
        assert all(kept["image_id"] in name for name in s.stored()) and len(s.stored()) == 4
        assert [path.name[-1] for path in (s.settings.data / "orphaned").iterdir()] == ["2"]
        (denied,) = await s.sql("SELECT metadata FROM image_upload_events WHERE event_type = 'list_denied'")
        assert json.loads(denied[0])["user_id"] == json.loads(denied[0])["org_id"] != PERSON
        again = await ended(s, await erase(s))
        assert again["erasure_id"] != report["erasure_id"] and again["counts"]["images"] == 0
        assert (await uploaded(s)).status_code == 202  # a user of the same name starts over


async def test_window_in_redis_goes_too(start: Starter) -> None:
    """Its key names the person. Another's stays."""
    with RedisServer() as redis:
        async with start(redis={"url": redis.url, "timeout_ms": 5000}) as s:
            await s.ended(await uploaded(s))
            await s.completed(make.jpeg(50, 40))
            assert len(redis.ask("KEYS", "*")) == 2 and names_in(str(redis.ask("KEYS", "*"))) != []
            await ended(s, await erase(s))
            with within(WAIT_SECONDS):
                while names_in(str(redis.ask("KEYS", "*"))):
                    await anyio.sleep(0.01)
            assert len(redis.ask("KEYS", "*")) == 1


async def test_person_is_refused_until_it_has_ended(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = anyio.Event()
    steps = Erasing._erase_images

    async def waiting(self: Erasing, erasure: Any) -> None:
        await go_on.wait()
        await steps(self, erasure)

    monkeypatch.setattr(Erasing, "_erase_images", waiting)
    async with start() as s:
        key = {"name": "n", "sub": PERSON, "org": ORG, "permissions": ["image:read", "image:upload"]}
        made = (await s.http.post(f"{OPERATOR}/keys", json=key, headers=s.operator)).json()["key"]
        ticket = (await s.http.post(f"{IMAGES}/tickets", json={"bucket": "b"}, headers=person(s))).json()
        report = await erase(s)
        by_key = {"Authorization": f"Bearer {made}"}
        refused = [
            await uploaded(s),
            await s.http.post(f"{IMAGES}/upload?bucket=b", content=TINY, headers=by_key | JPEG),
            await s.http.get(IMAGES, headers=by_key),
            await s.http.post(ticket["upload_url"], content=TINY, headers=JPEG),
            await s.http.post(f"{IMAGES}/tickets", json={"bucket": "b"}, headers=person(s)),
            await s.http.post(f"{OPERATOR}/keys", json=key, headers=s.operator),
        ]
        assert [(one.status_code, one.json()["code"]) for one in refused] == [(403, "being_erased")] * 6
        assert (await s.upload(TINY)).status_code == 202  # another user
        assert (await s.upload(TINY, user=PERSON)).status_code == 202  # of the same name in another organisation
        assert (await erase(s))["erasure_id"] == report["erasure_id"]
        metrics = (await s.http.get("/metrics", headers=s.operator)).text
        assert "people_being_erased 1.0" in metrics and "people_erased_total 0.0" in metrics
        go_on.set()
        assert (await ended(s, report))["state"] == "done"
        assert (await uploaded(s)).status_code == 202
        assert (await s.http.post(ticket["upload_url"], content=TINY, headers=JPEG)).status_code == 401
        metrics = (await s.http.get("/metrics", headers=s.operator)).text
        assert "people_being_erased 0.0" in metrics and "people_erased_total 1.0" in metrics


async def test_person_is_accepted_again_once_the_end_can_be_read(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = anyio.Event()
    async with start() as s:
        erasures = s.state.jobs.table.erasures
        write = erasures._write

        async def confirmed_late(*change: Any, **options: Any) -> Any:
            """The end is in the database, and the service does not know it yet."""
            result = await write(*change, **options)
            if [one for one in await erasures.all() if one.ended_at]:
                await looked.wait()
            return result

        monkeypatch.setattr(erasures, "_write", confirmed_late)
        assert (await ended(s, await erase(s)))["state"] == "done"
        assert (await uploaded(s)).status_code == 202
        looked.set()


@pytest.mark.parametrize("way", ["token", "ticket", "key"])
async def test_upload_begun_before_and_ended_after(start: Starter, way: str) -> None:
    """Its person was erased meanwhile, from the first step to the last."""
    async with start() as s:
        key = {"name": "n", "sub": PERSON, "org": ORG}
        made = (await s.http.post(f"{OPERATOR}/keys", json=key, headers=s.operator)).json()["key"]
        ticket = (await s.http.post(f"{IMAGES}/tickets", json={"bucket": "b"}, headers=person(s))).json()

        async def body() -> AsyncIterator[bytes]:
            yield TINY[:100]
            assert (await ended(s, await erase(s)))["state"] == "done"
            yield TINY[100:]

        url = ticket["upload_url"] if way == "ticket" else f"{IMAGES}/upload?bucket=b"
        headers = {"token": person(s), "ticket": {}, "key": {"Authorization": f"Bearer {made}"}}[way]
        response = await s.http.post(url, content=body(), headers=headers | JPEG)
        assert (response.status_code, response.json()["code"]) == (403, "being_erased")
        assert s.staged() == [] and s.stored() == []
        assert await s.sql("SELECT count(*) FROM processing_jobs") == [(0,)]
        assert names_in(dump(s.settings.database.path)) == []


async def test_a_start_takes_up_what_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut short after each of its transactions in turn."""
    seen = 0
    for stop_after in range(1, 40):
        folder, done = tmp_path / str(stop_after), 0
        with monkeypatch.context() as patch:
            store = erased_rows._store

            async def failing(*arguments: Any, store: Any = store, limit: int = stop_after, **more: Any) -> None:
                nonlocal done
                done += 1
                if done > limit:
                    raise RuntimeError("cut short")
                await store(*arguments, **more)

            patch.setattr(erased_rows, "_store", failing)
            async with service(folder) as s:
                await s.ended(await uploaded(s))
                report = await erase(s)
                with within(WAIT_SECONDS):
                    while done <= stop_after and report["state"] == "running":
                        await anyio.sleep(0.01)
                        answer = await s.http.get(f"{OPERATOR}/erasures/{report['erasure_id']}", headers=s.operator)
                        report = answer.json()
        if report["state"] == "done":
            break
        seen += 1
        async with service(folder) as s:
            report = await ended(s, report)
            assert (report["counts"]["images"], s.stored(), s.staged()) == (1, [], [])
            assert names_in(dump(s.settings.database.path)) == []
    assert seen > 5 and report["state"] == "done"


async def test_files_that_storage_does_not_let_go_keep_it_open(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    from imgsvc.storage.base import StorageError
    from imgsvc.storage.local import LocalStorage

    monkeypatch.setattr("imgsvc.jobs.erasing.AGAIN_SECONDS", 0.05)
    remove, refused = LocalStorage.remove, True

    async def failing(self: LocalStorage, bucket: str, key: str) -> bool:
        if refused:
            raise StorageError("no")
        return await remove(self, bucket, key)

    monkeypatch.setattr(LocalStorage, "remove", failing)
    async with start() as s:
        await s.ended(await uploaded(s))
        report = await erase(s)
        with within(WAIT_SECONDS):
            while report["step"] != "files":
                await anyio.sleep(0.01)
                report = (await s.http.get(f"{OPERATOR}/erasures", headers=s.operator)).json()["erasures"][0]
        assert report["state"] == "running" and len(s.stored()) == 4
        refused = False
        assert (await ended(s, report))["state"] == "done" and s.stored() == []


async def test_webhooks_between_two_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Earlier attempts fail; afterwards only the deletion is sent, with IDs alone, and no table or log has a name."""
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 0.05)

    def answer(one: Received) -> int:
        return 204 if one.type == "image.deleted" else 500

    with Receiver(answer) as receiver:
        async with service(tmp_path, webhooks={"endpoints": [receiver.settings()]}) as s:
            job = await s.ended(await uploaded(s))
            await receiver.gets(1)
            capfd.readouterr()
            report = await ended(s, await erase(s))
            with within(WAIT_SECONDS):
                while (await s.state.telling.table.endpoints())["app"].waiting:
                    await anyio.sleep(0.01)
            last = receiver.received[-1]
            assert last.json["data"] == {"image_id": job["image_id"], "job_id": job["job_id"]}
            assert last.type == "image.deleted" and report["counts"]["deliveries"] == 2
            assert await s.sql("SELECT event_type, state FROM webhook_outbox") == [("image.deleted", "delivered")]
            assert await s.sql(
                "SELECT count(*) FROM webhook_attempts WHERE delivery NOT IN (SELECT id FROM webhook_outbox)"
            ) == [(0,)]
            logged = "\n".join(capfd.readouterr())
            assert "person_erased" in logged and names_in(logged) == []
            assert names_in(dump(s.settings.database.path)) == []


async def test_attempt_of_a_delivery_that_is_gone_is_not_logged(tmp_path: Path) -> None:
    with Receiver() as receiver:
        async with service(tmp_path, webhooks={"endpoints": [receiver.settings()]}) as s:
            await s.completed(TINY)
            table = s.state.telling.table
            with within(WAIT_SECONDS):
                while (await table.endpoints())["app"].waiting:
                    await anyio.sleep(0.01)
            gone = (await s.sql("SELECT max(id) FROM webhook_outbox"))[0][0]
            (delivery,) = await s.sql("SELECT count(*) FROM webhook_attempts")
            from imgsvc.jobs.table.webhook_table import Delivery

            unknown = Delivery(gone + 1, "app", "msg", "image.ready", "i", "j", "t", 0, "t")
            await table.record(unknown, Attempt("t", 200, None, 1), "delivered")
            assert (await s.sql("SELECT count(*) FROM webhook_attempts"))[0] == delivery


async def test_reports_are_for_the_operator(start: Starter) -> None:
    async with start(operator={"public": True}) as s:
        assert (await s.http.get(f"{OPERATOR}/erasures")).status_code == 401
        unknown = await s.http.get(f"{OPERATOR}/erasures/00000000-0000-4000-8000-000000000000", headers=s.operator)
        assert (unknown.status_code, unknown.json()["code"]) == (404, "erasure_not_found")
        assert (await s.http.delete(f"{OPERATOR}/users/o/u", headers=s.bearer())).status_code == 401
        assert await s.sql("SELECT count(*) FROM erasures") == [(0,)]
