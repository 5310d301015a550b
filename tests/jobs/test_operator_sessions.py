"""The operator's sessions: through restarts, ended by another token, a restore, or a command."""

from datetime import UTC, datetime, timedelta

import anyio.to_thread
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from imgsvc.cli import operator as commands
from imgsvc.jobs import operator_sessions
from imgsvc.jobs.data_folder import open_data_folder
from imgsvc.jobs.operator_sessions import OperatorSessions
from imgsvc.jobs.table.session_rows import SessionRows
from imgsvc.jobs.table.writer import DatabaseUnavailable
from tests.conftest import Service, Starter

pytestmark = pytest.mark.asyncio
LOGIN, DATA, SESSIONS = "/api/v1/operator/login", "/dashboard/data", "/api/v1/operator/sessions"
OWN = {"Origin": "http://localhost", "X-Requested-With": "imgsvc"}


class Clock:
    def __init__(self) -> None:
        self.moment = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment


async def signed_in(s: Service) -> dict[str, str]:
    """The cookie of a new session, as a header."""
    answer = await s.http.post(LOGIN, json={"token": (s.settings.data / "operator_token").read_text().strip()})
    s.http.cookies.clear()
    return {"Cookie": answer.headers["Set-Cookie"].split(";")[0]}


async def opens(s: Service, cookie: dict[str, str]) -> bool:
    return (await s.http.get(DATA, headers=cookie)).status_code == 200


async def test_session_survives_a_restart_and_its_cookie_is_not_in_the_database(start: Starter) -> None:
    async with start() as s:
        cookie = await signed_in(s)
        path = s.settings.database.path
    value = cookie["Cookie"].partition("=")[2]
    assert value.encode() not in path.read_bytes()
    async with start() as s:
        assert await opens(s, cookie)
        await s.http.post("/api/v1/operator/logout", headers=cookie)
    async with start() as s:
        assert not await opens(s, cookie)


async def test_another_token_ends_all_sessions(start: Starter) -> None:
    async with start() as s:
        cookie = await signed_in(s)
        settings = s.settings
        (settings.data / "operator_token").unlink()
    async with start() as s:
        assert not await opens(s, cookie)
    async with open_data_folder(settings, 0) as data:
        assert await data.session_rows.drop_all(datetime(2000, 1, 1, tzinfo=UTC)) == 0


async def test_another_instance_as_after_a_restore_ends_all_sessions(start: Starter) -> None:
    async with start() as s:
        cookie = (await signed_in(s))["Cookie"].partition("=")[2]
        settings = s.settings
        assert s.state.access.sessions.get(cookie)
    async with open_data_folder(settings, 0) as data:
        kept = OperatorSessions(data.session_rows, b"of another instance", 60)
        await kept.load()
        assert kept.get(cookie) is None


async def test_all_are_listed_and_revoked(start: Starter) -> None:
    async with start() as s:
        first, second = await signed_in(s), await signed_in(s)
        found = (await s.http.get(SESSIONS, headers=first)).json()["sessions"]
        assert [one["subject"] for one in found] == [None, None] and found[0]["opened_at"] > found[1]["opened_at"]
        assert (await s.http.delete(SESSIONS, headers=first)).status_code == 403  # as another site's page would send it
        assert (await s.http.delete(SESSIONS, headers={**first, **OWN})).json() == {"ended": 2}
        assert not await opens(s, first) and not await opens(s, second)


async def test_commands_work_without_the_service(start: Starter) -> None:
    async with start() as s:
        await signed_in(s)
        settings = s.settings

    def both() -> None:
        found = commands._without_service(settings, commands._listed)
        assert [one["subject"] for one in found] == [None]
        other = settings.model_copy(
            update={"operator": settings.operator.model_copy(update={"token": SecretStr("x" * 40)})}
        )
        assert commands._without_service(other, commands._listed) == []  # and does not end those of the service's
        assert commands._without_service(settings, commands._revoked) == 1

    await anyio.to_thread.run_sync(both)


async def test_session_ends_by_the_clock_and_the_number_is_bounded(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_sessions, "MAX_SESSIONS", 3)
    async with start() as s:
        settings = s.settings
    clock = Clock()
    async with open_data_folder(settings, 0) as data:
        sessions = OperatorSessions(data.session_rows, b"c", 100, clock)
        cookies = []
        for _ in range(4):
            cookies.append(await sessions.open("ann"))
            clock.moment += timedelta(seconds=1)
        assert [sessions.get(cookie) is not None for cookie in cookies] == [False, True, True, True]
        assert sessions.get("") is None and sessions.get(cookies[3][:-1]) is None
        clock.moment += timedelta(seconds=100)
        assert sessions.open_ones() == []
        again = OperatorSessions(data.session_rows, b"c", 100, Clock())
        await again.load()
        assert [one.subject for one in again.open_ones()] == ["ann"] * 3


async def test_full_disk_does_not_keep_the_operator_out(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuses(*_: object) -> None:
        raise DatabaseUnavailable("database or disk is full")

    async with start() as s:
        monkeypatch.setattr(SessionRows, "insert", refuses)
        with capture_logs() as logged:
            assert await opens(s, await signed_in(s))
        assert [line["reason"] for line in logged if line["event"] == "operator_session_not_stored"]
