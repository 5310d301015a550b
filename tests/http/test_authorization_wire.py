"""Permissions from an authorization server as clients and the operator see them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from fixtures import make
from imgsvc import Settings
from imgsvc.settings import SettingsError
from imgsvc.settings.hosts import without_credentials
from tests.conftest import Service, Starter
from tests.http.test_every_error import whole
from tests.support import authorization_server as says
from tests.support.authorization_server import Act, AuthorizationServer, answering, authorization_server
from tests.support.speed import within

TINY = make.tiny()
HEALTH = "/api/v1/health/auth"
ODD_NAMES = [
    ("a:b", "c"),
    ("a", "b:c"),
    ("a/b", "../c"),
    ("..", "."),
    ("100%", "%2F"),
    ("ü", "日本 語?#;+&="),
    ("a\\", '"'),
]


@asynccontextmanager
async def asking(
    start: Starter, act: Act = says.GRANT, **auth: Any
) -> AsyncIterator[tuple[Service, AuthorizationServer]]:
    async with authorization_server(act) as server:
        settings = {"permissions": "remote", "api_url": server.url, **auth}
        async with start(auth=settings) as s:
            yield s, server


def address(org: str, user: str) -> str:
    org, user = (quote(name, safe="").replace(".", "%2E") for name in (org, user))
    return f"/api/v1/operator/permissions/{org}/{user}"


async def test_upload_is_as_the_server_says(start: Starter) -> None:
    async with asking(start) as (s, server):
        accepted = await s.upload(TINY)
        assert accepted.status_code == 202
        assert server.questions == [("default-org", "alice", "image:upload")]
        assert server.asked[0].headers["x-trace-id"] == accepted.headers["X-Trace-ID"]

        server.act = says.FORBID
        denied = await s.upload(TINY, user="bob")
        assert (denied.status_code, whole(denied)) == (403, "permission_denied")
        assert denied.json()["detail"] == "Permission denied: image:upload"
        server.act = says.SAY_NO
        assert (await s.upload(TINY, user="carol")).status_code == 403

        server.act = answering(500)
        away = await s.upload(TINY, user="dave")
        assert (away.status_code, whole(away)) == (503, "authorization_unavailable")
        assert away.json()["detail"] == "Authorization service temporarily unavailable"
        assert int(away.headers["Retry-After"]) > 0
        assert (await s.upload(TINY)).status_code == 202  # still known
        assert (await s.upload(TINY, user="bob")).status_code == 403
        assert len(await s.sql("SELECT 1 FROM processing_jobs")) == 2
        assert await s.sql("SELECT DISTINCT upload_count FROM upload_rate_limits") == [
            (2,)
        ]  # refused ones cost nothing


async def test_nobody_is_asked_about_a_bad_token_or_in_other_modes(start: Starter) -> None:
    async with asking(start) as (s, server):
        assert (await s.http.post("/api/v1/images/upload")).status_code == 401
        headers = {"Authorization": "Bearer x.y.z"}
        assert (await s.http.post("/api/v1/images/upload", headers=headers)).status_code == 401
        assert server.asked == []
    async with asking(start, permissions="none") as (s, server):
        assert (await s.upload(TINY)).status_code == 202
        assert server.asked == []


async def test_refusal_does_not_wait_for_the_body(start: Starter) -> None:
    """Permission comes before the limits, the quota and everything in the body."""
    async with asking(start, says.FORBID) as (s, _):
        headers = s.bearer() | {"Content-Length": str(1 << 40), "Content-Type": "image/jpeg"}
        denied = await s.http.post("/api/v1/images/upload", content=b"", headers=headers)
        assert (denied.status_code, whole(denied)) == (403, "permission_denied")


async def test_open_breaker_says_when_to_come_back(start: Starter) -> None:
    async with asking(start, answering(500), breaker_threshold=2, breaker_timeout=45) as (s, server):
        await asyncio.gather(*(s.upload(TINY, user=user) for user in ("alice", "bob")))
        away = await s.upload(TINY)
        assert away.status_code == 503
        assert 40 <= int(away.headers["Retry-After"]) <= 45
        assert len(server.asked) == 2


async def test_fail_open(start: Starter) -> None:
    async with asking(start, answering(500), fail_open=True) as (s, _):
        assert (await s.upload(TINY)).status_code == 202


async def auth_health(s: Service) -> dict[str, Any]:
    answer = await s.http.get(HEALTH, headers=s.operator)
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


async def test_auth_health_names_server_and_settings(start: Starter) -> None:
    async with asking(start, breaker_threshold=2) as (s, server):
        body = await auth_health(s)
        assert body.keys() == {"status", "auth_api", "cache", "config", "timestamp"}
        assert body["status"] == "healthy"
        assert body["auth_api"] == {
            "url": server.url,
            "timeout_seconds": 5,
            "circuit_breaker": {
                "state": "closed",
                "failures": 0,
                "threshold": 2,
                "timeout_seconds": 60,
                "opened_at": None,
            },
        }
        ttl = {"read_seconds": 300, "write_seconds": 60, "admin_seconds": 30, "denied_seconds": 120}
        assert body["cache"] == {"enabled": True, "entries": 0, "ttl_config": ttl}
        assert body["config"] == {"permissions": "remote", "fail_open": False}


async def test_auth_health_tells_the_truth(start: Starter) -> None:
    async with asking(start, breaker_threshold=2) as (s, server):
        assert (await auth_health(s))["status"] == "healthy"
        await s.upload(TINY)
        body = await auth_health(s)
        assert (body["status"], body["cache"]["entries"]) == ("healthy", 1)
        server.act = answering(500)
        await s.upload(TINY, user="bob")
        body = await auth_health(s)
        breaker = body["auth_api"]["circuit_breaker"]
        assert (body["status"], breaker["state"], breaker["failures"]) == ("degraded", "closed", 1)
        await s.upload(TINY, user="bob")
        body = await auth_health(s)
        breaker = body["auth_api"]["circuit_breaker"]
        assert (body["status"], breaker["state"], breaker["failures"]) == ("degraded", "open", 2)
        assert breaker["opened_at"] <= body["timestamp"]
        assert breaker["opened_at"].endswith("+00:00")

        await s.state.telemetry.health.measure()
        report = (await s.http.get("/api/v1/health")).json()
        assert report["status"] == report["checks"]["authorization"]["status"] == "degraded"
        assert report["checks"]["authorization"]["detail"] == "2 failed in a row; calls are held back"


async def test_auth_health_where_nobody_is_asked(start: Starter) -> None:
    async with start(auth={"api_url": "http://127.0.0.1:9"}) as s:
        body = (await s.http.get(HEALTH, headers=s.operator)).json()
        assert (body["status"], body["auth_api"]["url"], body["cache"]["enabled"]) == ("healthy", None, False)
        assert body["config"] == {"permissions": "none", "fail_open": False}
        assert "authorization" not in (await s.http.get("/api/v1/health")).json()["checks"]
        dropped = await s.http.delete(address("o", "u"), headers=s.operator)
        assert dropped.json() == {"org_id": "o", "user_id": "u", "dropped": 0}


async def test_only_the_operator_may_look_and_drop(start: Starter) -> None:
    async with asking(start) as (s, _):
        await s.upload(TINY)
        for headers in ({}, s.bearer()):
            for method, path in (("GET", HEALTH), ("DELETE", address("default-org", "alice"))):
                refused = await s.http.request(method, path, headers=headers)
                assert refused.status_code == 401, (method, path)
        assert s.state.access.remote and len(s.state.access.remote.answers) == 1


async def test_credentials_of_the_url_are_shown_to_nobody(start: Starter) -> None:
    async with authorization_server() as server:
        url = f"http://me:hidden-word@127.0.0.1:{server.port}/x"
        async with start(auth={"permissions": "remote", "api_url": url}) as s:
            await s.upload(TINY)
            assert server.asked[0].headers["authorization"].startswith("Basic ")
            told = [await s.http.get(path, headers=s.operator) for path in (HEALTH, "/dashboard/data", "/info")]
            assert f"http://127.0.0.1:{server.port}/x" in told[0].text
            assert [answer.status_code for answer in told] == [200] * 3
            assert not [answer.url for answer in told if "hidden-word" in answer.text]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h/x", "https://h/x"),
        ("https://p@ss:w@rd@h:1", "https://h:1"),
        ("redis://:p@h:6379/0", "redis://h:6379/0"),
        ("https://h/a@b", "https://h/a@b"),
        ("", ""),
        ("alice@example.org", "alice@example.org"),
    ],
)
def test_without_credentials(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


async def test_drop_forgets_exactly_one_user_whatever_the_names_hold(start: Starter) -> None:
    async with asking(start) as (s, _):
        remote = s.state.access.remote
        assert remote
        for org, user in ODD_NAMES:
            await remote.allowed(org, user, "image:upload")
            await remote.allowed(org, user, "image:read")
        for place, (org, user) in enumerate(ODD_NAMES):
            answer = await s.http.delete(address(org, user), headers=s.operator)
            assert answer.status_code == 200, (org, user)
            assert answer.json() == {"org_id": org, "user_id": user, "dropped": 2}
            assert len(remote.answers) == 2 * (len(ODD_NAMES) - place - 1)
        again = await s.http.delete(address(*ODD_NAMES[0]), headers=s.operator)
        assert again.json()["dropped"] == 0


async def test_drop_takes_effect_with_the_next_upload(start: Starter) -> None:
    async with asking(start) as (s, server):
        assert (await s.upload(TINY)).status_code == 202
        server.act = says.FORBID
        assert (await s.upload(TINY)).status_code == 202
        await s.http.delete(address("default-org", "alice"), headers=s.operator)
        assert (await s.upload(TINY)).status_code == 403


async def test_drop_needs_two_names(start: Starter) -> None:
    async with start() as s:
        for path in ("a", "a/", "/b", "a/b/c", "", "a%2Fb", "a/b/"):
            answer = await s.http.delete(f"/api/v1/operator/permissions/{path}", headers=s.operator)
            assert (answer.status_code, whole(answer)) == (404, "not_found"), path


async def test_client_that_goes_away_leaves_an_answer(start: Starter) -> None:
    async with asking(start) as (s, server):
        server.gate.clear()
        upload = asyncio.create_task(s.upload(TINY))
        await server.arrived.acquire()
        upload.cancel()
        await asyncio.wait({upload})
        server.gate.set()
        with within(10):
            assert (await s.upload(TINY)).status_code == 202
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    "url",
    ["auth.example", "ftp://h", "http://", "http://:80", "http://h?x", "http://h/ x", "http://h:99999", "http://h:x"],
)
def test_url_that_leads_nowhere_stops_the_start(url: str) -> None:
    with pytest.raises(ValidationError, match="must be empty or an absolute"):
        Settings(auth={"api_url": url})  # type: ignore[arg-type]


def test_settings_name_what_is_missing_and_hide_the_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError) as raised:
        Settings.load(environ={"AUTH_PERMISSIONS": "remote"})
    assert str(raised.value) == "[auth]: permissions (AUTH_PERMISSIONS) = 'remote' needs api_url (AUTH_API_URL)"
    for name, url in (
        ("AUTH_API_URL", "http://me:hidden-word@h?x"),
        ("AUTH_API_JWKS_URL", "https://me:hidden-word@h/keys"),
        ("AWS_ENDPOINT_URL", "https://me:hidden-word@h"),
        ("REDIS_URL", "redsi://h?password=hidden-word"),
    ):
        with pytest.raises(SettingsError) as raised:
            Settings.load(environ={name: url})
        assert f"({name}) = (hidden): must " in str(raised.value) and "hidden-word" not in str(raised.value)
