"""revocations.jsonl: backup, revoke, spend, erase, restore; with the file, without it, and with a torn one."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from fixtures import make
from imgsvc.jobs import revocations
from imgsvc.jobs.revocations import NAME, add_restore, append, read
from imgsvc.maintenance.backup.restore import restore
from imgsvc.maintenance.progress import Progress
from imgsvc.settings import Settings
from imgsvc.storage.registry import storage_registry
from tests.conftest import WAIT_SECONDS, Service, service
from tests.support.receiver import Receiver
from tests.support.speed import within

IMAGES, OPERATOR = "/api/v1/images", "/api/v1/operator"
TINY, JPEG = make.tiny(), {"Content-Type": "image/jpeg"}


async def put_back(settings: Settings, backup: Path) -> Progress:
    progress = Progress()
    async with storage_registry(settings) as stores:
        await restore(settings, stores.storages, progress, source=backup, force=True, dry_run=False)
    return progress


async def backed_up(s: Service, folder: Path) -> None:
    order = {"destination": str(folder)}
    assert (await s.http.post(f"{OPERATOR}/storage/backup", json=order, headers=s.operator)).status_code == 202
    with within(WAIT_SECONDS):
        task = f"{OPERATOR}/storage/task"
        while (await s.http.get(task, headers=s.operator)).json()["state"] == "running":
            await anyio.sleep(0.01)
    assert (folder / "manifest.json").is_file()


async def key_of(s: Service, user: str) -> dict[str, Any]:
    made = await s.http.post(f"{OPERATOR}/keys", json={"name": "n", "sub": user}, headers=s.operator)
    found: dict[str, Any] = made.json()
    return found


async def before_and_after_a_backup(s: Service, backup: Path) -> dict[str, Any]:
    """What was handed out before it, and was revoked, spent and erased after it."""
    keys = {"kept": await key_of(s, "bob"), "revoked": await key_of(s, "bob"), "of zelda": await key_of(s, "zelda")}
    ticket = (await s.http.post(f"{IMAGES}/tickets", json={"bucket": "b"}, headers=s.bearer("bob"))).json()
    login = await s.http.post(f"{OPERATOR}/login", json={"code": s.login_code()})
    cookie = login.headers["Set-Cookie"].partition(";")[0]
    s.http.cookies.clear()
    await s.completed(TINY, user="zelda")
    kept = await s.completed(TINY, user="bob")
    await backed_up(s, backup)
    assert (await s.http.delete(f"{OPERATOR}/keys/{keys['revoked']['key_id']}", headers=s.operator)).status_code == 200
    assert (await s.http.post(ticket["upload_url"], content=TINY, headers=JPEG)).status_code == 202
    assert (await s.http.delete(f"{OPERATOR}/users/default-org/zelda", headers=s.operator)).status_code == 202
    await erased(s)
    return {"keys": keys, "ticket": ticket["upload_url"], "cookie": cookie, "kept": kept["image_id"]}


async def erased(s: Service) -> None:
    with within(WAIT_SECONDS):
        while await s.sql("SELECT 1 FROM erasures WHERE ended_at IS NULL"):
            await anyio.sleep(0.01)


async def status_of(s: Service, key: dict[str, Any]) -> int:
    headers = JPEG | {"Authorization": f"Bearer {key['key']}"}
    return (await s.http.post(f"{IMAGES}/upload?bucket=b", content=TINY, headers=headers)).status_code


async def people(s: Service) -> set[str]:
    found = await s.sql("SELECT user_id FROM processing_jobs UNION SELECT user_id FROM api_keys")
    return {name for (name,) in found if name}


async def check_of(s: Service) -> tuple[str, str]:
    await s.state.telemetry.health.measure("revocations")
    found = s.state.telemetry.health.checks()["revocations"]
    return found.status, found.detail


async def test_backup_revoke_spend_erase_restore(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    async with service(data) as s:
        made = await before_and_after_a_backup(s, tmp_path / "backup")
        lines = (s.settings.data / NAME).read_text()
        names = ("zelda", "bob", *(key["key"] for key in made["keys"].values()))
        assert [name for name in names if name in lines] == []
    progress = await put_back(s.settings, tmp_path / "backup")
    assert (progress.counts["known_revocations"], progress.counts["unknown_revocations"]) == (2, 0)
    capfd.readouterr()
    async with service(data) as s:
        assert "revoked_again" in "".join(capfd.readouterr())
        await erased(s)
        keys = made["keys"]
        assert [await status_of(s, keys[name]) for name in ("kept", "revoked", "of zelda")] == [202, 401, 401]
        assert await people(s) == {"bob"}
        assert (await s.http.post(made["ticket"], content=TINY, headers=JPEG)).status_code == 401
        dashboard = await s.http.get(f"{OPERATOR}/sessions", headers={"Cookie": made["cookie"]})
        assert dashboard.status_code == 401
        assert (await s.http.get(f"{IMAGES}/{made['kept']}")).status_code == 200
        (report,) = (await s.http.get(f"{OPERATOR}/erasures", headers=s.operator)).json()["erasures"]
        assert (report["repeated"], report["counts"]["images"]) == (True, 1)
        assert (await check_of(s))[0] == "healthy"
        before = (s.settings.data / NAME).read_text()
    async with service(data) as s:  # nothing is left to do, and nothing is added
        assert (s.settings.data / NAME).read_text() == before
        assert "revoked_again" not in "".join(capfd.readouterr()).partition("stopped")[2]


async def test_without_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It serves, and says what can't be known; once the file is found again, it is known."""
    data = tmp_path / "data"
    async with service(data) as s:
        made = await before_and_after_a_backup(s, tmp_path / "backup")
    lost = tmp_path / "lost.jsonl"
    (s.settings.data / NAME).rename(lost)
    progress = await put_back(s.settings, tmp_path / "backup")
    assert (progress.counts["known_revocations"], progress.counts["unknown_revocations"]) == (0, 1)
    capfd.readouterr()
    async with service(data) as s:
        assert "revocations_unknown" in "".join(capfd.readouterr())
        status, detail = await check_of(s)
        assert status == "degraded" and "keys revoked and people erased" in detail
        assert await status_of(s, made["keys"]["revoked"]) == 202
        assert await people(s) == {"bob", "zelda"}
    with (s.settings.data / NAME).open("a") as stream:
        stream.write(lost.read_text())
    async with service(data) as s:
        await erased(s)
        assert await status_of(s, made["keys"]["revoked"]) == 401
        assert await people(s) == {"bob"}
        assert (await check_of(s))[0] == "healthy"


async def test_deliveries_of_before_a_restore_are_held(tmp_path: Path) -> None:
    with Receiver(lambda _: 500) as receiver:
        sections = {"webhooks": {"endpoints": [receiver.settings(events=["image.completed"])]}}
        async with service(tmp_path / "data", **sections) as s:
            await s.completed(TINY)
            await backed_up(s, tmp_path / "backup")
        await put_back(s.settings, tmp_path / "backup")
        receiver.answer = lambda _: 204
        async with service(tmp_path / "data", **sections) as s:
            assert await s.sql("SELECT state FROM webhook_outbox") == [("held",)]
            replay = f"{OPERATOR}/webhooks/app/replay"
            assert (await s.http.post(replay, json={}, headers=s.operator)).json() == {"replayed": 1}
            with within(WAIT_SECONDS):
                while await s.sql("SELECT 1 FROM webhook_outbox WHERE state <> 'delivered'"):
                    await anyio.sleep(0.01)


async def test_revocation_that_is_not_recorded_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with service(tmp_path) as s:
        key = await key_of(s, "bob")
        with monkeypatch.context() as patch:
            patch.setattr(revocations, "append", full)
            answer = await s.http.delete(f"{OPERATOR}/keys/{key['key_id']}", headers=s.operator)
            assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
            assert await status_of(s, key) == 202
            answer = await s.http.delete(f"{OPERATOR}/users/default-org/bob", headers=s.operator)
            assert answer.status_code == 503
        assert (await s.http.delete(f"{OPERATOR}/keys/{key['key_id']}", headers=s.operator)).status_code in (200, 404)
        assert (await s.http.delete(f"{OPERATOR}/users/default-org/bob", headers=s.operator)).status_code == 202
        await erased(s)
        assert [json.loads(line)["kind"] for line in (s.settings.data / NAME).read_text().splitlines()].count("erased")


async def test_what_an_older_version_has_revoked_is_added(tmp_path: Path) -> None:
    async with service(tmp_path) as s:
        key = await key_of(s, "bob")
        await s.http.delete(f"{OPERATOR}/keys/{key['key_id']}", headers=s.operator)
    recorded = read(s.settings.data / NAME)
    (s.settings.data / NAME).unlink()
    async with service(tmp_path) as s:
        assert read(s.settings.data / NAME) == recorded
        assert (await check_of(s))[0] == "healthy"


def test_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / NAME
    assert read(path).keys == frozenset()
    append(path, [{"kind": "revoked", "key": "aa"}])
    with path.open("a") as stream:
        stream.write('{"kind": "revoked", "ke')
    append(path, [{"kind": "revoked", "key": "bb"}, {"kind": "of a later version"}, {"kind": "revoked", "key": "x"}])
    assert read(path).keys == {b"\xaa", b"\xbb"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_a_restore_leaves_unknown(tmp_path: Path) -> None:
    assert add_restore(tmp_path, "first", "second", "t").unknown != ()
    assert len(add_restore(tmp_path, "second", "third", "t").unknown) == 1
    append(tmp_path / NAME, [{"kind": "began", "epoch": "first"}])
    assert add_restore(tmp_path, "third", "fourth", "t").unknown == ()
    assert len(add_restore(tmp_path, None, "fifth", "t").unknown) == 1
