"""Every way in for the operator, and every attack on it."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from fixtures import make
from imgsvc.access.login_throttle import BURST, SLOW_SECONDS, LoginThrottle
from imgsvc.access.operator_auth import operator_token
from imgsvc.http.operator.auth import COOKIE
from tests.conftest import Service, Starter, shared_service
from tests.http.test_every_error import whole

TINY = make.tiny()
DATA = "/dashboard/data"
LOGIN = "/api/v1/operator/login"
LOGOUT = "/api/v1/operator/logout"
TOKEN = "/api/v1/operator/token"
OWN = {"Origin": "http://localhost", "X-Requested-With": "imgsvc"}
shared = shared_service()


@pytest.fixture
def s(shared: Service) -> Service:
    shared.state.access = replace(shared.state.access, throttle=LoginThrottle())
    shared.http.cookies.clear()
    return shared


pytestmark = pytest.mark.asyncio(loop_scope="module")


def basic(password: str, user: str = "anybody") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def login(s: Service, **body: str) -> httpx.Response:
    return await s.http.post(LOGIN, json=body)


async def timed(request: Awaitable[httpx.Response]) -> tuple[httpx.Response, float]:
    """The response, and the seconds that it took."""
    began = time.monotonic()
    return await request, time.monotonic() - began


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, whole(answer)) == (status, code), answer.text


async def test_token_is_made_at_the_first_start_and_nobody_else_reads_it(s: Service) -> None:
    file = s.settings.data / "operator_token"
    assert file.stat().st_mode & 0o777 == 0o600
    assert operator_token(s.settings) == file.read_text().strip()


async def test_bearer_and_basic_open_it(s: Service) -> None:
    token = operator_token(s.settings)
    for headers in ({"Authorization": f"bearer  {token}"}, s.operator, basic(token), basic(token, "")):
        answer = await s.http.get(DATA, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "private, no-store"
        assert answer.json()["operator"]["may_act"] is True


@pytest.mark.parametrize(
    "value",
    [
        "Bearer",
        "Bearer x",
        "Basic",
        "Basic ???",
        "Basic eA==",
        "Basic w6k6w6k=",
        "Basic //79",
        "Bearer \xe9",
        "bearer " * 9,
    ],
)
async def test_wrong_credentials_are_refused(s: Service, value: str) -> None:
    headers = {b"Authorization": value.encode("latin-1")}
    refused(await s.http.get(DATA, headers=headers), 401, "operator_refused")


async def test_other_schemes_and_a_users_token_open_nothing(s: Service) -> None:
    for headers in ({}, {"Authorization": "Digest x"}, {"Cookie": f"{COOKIE}=x"}, {"X-Forwarded-For": "127.0.0.1"}):
        refused(await s.http.get(DATA, headers=headers), 401, "operator_required")
    refused(await s.http.get(DATA, headers=s.bearer(permissions=["image:admin"])), 401, "operator_refused")


async def test_refusal_says_how_to_get_in(s: Service) -> None:
    program = await s.http.get(DATA)
    assert "operator_token" in program.json()["detail"] and "imgsvc dashboard" in program.json()["detail"]
    assert program.headers["WWW-Authenticate"] == 'Bearer realm="imgsvc operator", Basic realm="imgsvc operator"'
    person = await s.http.get("/dashboard", headers={"Accept": "text/html,*/*"})
    assert person.status_code == 401
    assert person.headers["Content-Type"].startswith("text/html")
    assert "<form" in person.text and "script-src 'self'" in person.headers["Content-Security-Policy"]
    assert "unsafe" not in person.headers["Content-Security-Policy"]
    assert (
        person.headers["WWW-Authenticate"] == 'Bearer realm="imgsvc operator"'
    )  # Basic would open the browser's own window


async def test_session_opens_it_until_it_is_closed(s: Service) -> None:
    answer = await login(s, token=operator_token(s.settings))
    assert (answer.status_code, answer.content) == (204, b"")
    cookie = answer.headers["Set-Cookie"]
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert attributes == {"httponly", "samesite=strict", "path=/", "max-age=43200"}
    assert (await s.http.get(DATA)).status_code == 200
    assert (await s.http.post(LOGOUT)).status_code == 204
    refused(await s.http.get(DATA, headers={"Cookie": cookie.split(";")[0]}), 401, "operator_required")


async def test_cookie_is_secure_where_the_service_is_reached_by_tls(start: Starter) -> None:
    async with start(service={"public_url": "https://img.example/pics"}) as s:
        answer = await login(s, token=operator_token(s.settings))
        assert "; Secure" in answer.headers["Set-Cookie"]


async def test_code_opens_one_session(s: Service) -> None:
    code = s.login_code()
    assert (await login(s, code=code)).status_code == 204
    s.http.cookies.clear()
    refused(await login(s, code=code), 401, "operator_refused")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "application/json"),
        (b"{}", "application/json"),
        (b"[]", "application/json"),
        (b'{"token": 5}', "application/json"),
        (b'{"token": "x", "code": "y"}', "application/json"),
        (b'{"token": "x", "more": 1}', "application/json"),
        (b'{"token": "' + b"x" * 5000 + b'"}', "application/json"),
        (b"\xff" * 10, "application/json"),
        (b'{"token": "x"}', "text/plain"),
        (b"token=x", "application/x-www-form-urlencoded"),
    ],
)
async def test_malformed_login(s: Service, content: bytes, kind: str) -> None:
    answer = await s.http.post(LOGIN, content=content, headers={"Content-Type": kind})
    refused(answer, 422, "validation_error")
    assert "Set-Cookie" not in answer.headers


async def test_guesses_are_slowed_down_counted_and_logged(s: Service) -> None:
    guesses = [await login(s, token="wrong-secret-guess") for _ in range(BURST // 2)]
    with capture_logs() as logs:
        guesses += [await s.http.get(DATA, headers={"Authorization": "Bearer wrong"}) for _ in range(BURST // 2)]
    assert {answer.status_code for answer in guesses} == {401}
    (entry, *_) = [entry for entry in logs if entry["event"] == "operator_refused"]
    assert (entry["log_level"], entry["client"], entry["path"], entry["by"]) == ("warning", "127.0.0.1", DATA, "token")
    assert "wrong" not in str(logs)
    slowed = (
        login(s, token="wrong"),
        login(s, code="wrong"),
        s.http.get(DATA, headers={"Authorization": "Bearer wrong"}),
        s.http.get(DATA, headers=basic("wrong")),
    )
    for answer, seconds in await asyncio.gather(*map(timed, slowed)):
        assert seconds >= SLOW_SECONDS
        refused(answer, 429, "operator_attempts")
        assert 1 <= int(answer.headers["Retry-After"]) <= 13
    answer = await s.http.get(DATA, headers=s.operator)
    assert answer.json()["operator"]["refused_attempts_last_hour"] == BURST + 4


async def test_who_guesses_locks_nobody_out(s: Service) -> None:
    """Behind a proxy all clients have one address: Prometheus, the operator and an attacker who guesses."""
    guesses = await asyncio.gather(*(login(s, token=f"guess-{n}") for n in range(100)))
    assert sorted(answer.status_code for answer in guesses) == [401] * BURST + [429] * (100 - BURST)
    right = operator_token(s.settings)
    for headers in (s.operator, basic(right)):
        assert (await s.http.get(DATA, headers=headers)).status_code == 200
    assert (await login(s, code=s.login_code())).status_code == 204
    assert (await login(s, token=right)).status_code == 204


async def test_login_that_stalls_is_dropped(start: Starter) -> None:
    async with start(uploads={"idle_timeout_seconds": 0.2}) as s:

        async def stalled() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

        answer = await s.http.post(LOGIN, content=stalled(), headers={"Content-Type": "application/json"})
        refused(answer, 408, "upload_stalled")


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (OWN, 200),
        ({**OWN, "Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 403),
        ({"Origin": "http://localhost"}, 403),
        ({"X-Requested-With": "imgsvc"}, 403),
        ({**OWN, "Origin": "http://evil.example"}, 403),
        ({**OWN, "Origin": "http://localhost.evil.example"}, 403),
        ({**OWN, "Origin": "http://localhost:8001"}, 403),
        ({**OWN, "Origin": "null"}, 403),
        ({**OWN, "Origin": ""}, 403),
        ({**OWN, "Origin": "http://["}, 403),
        ({**OWN, "Origin": "javascript://localhost"}, 403),
        ({**OWN, "Origin": "http://localhost/"}, 403),
        ({**OWN, "Origin": "http://evil@localhost"}, 403),
        ({**OWN, "Sec-Fetch-Site": "same-site"}, 403),
        ({**OWN, "Sec-Fetch-Site": "cross-site"}, 403),
        ({**OWN, "Sec-Fetch-Site": "none"}, 403),
    ],
)
async def test_other_pages_change_nothing(s: Service, given: dict[str, str], status: int) -> None:
    right = operator_token(s.settings)
    session = (await login(s, token=right)).headers["Set-Cookie"].split(";")[0]
    s.http.cookies.clear()
    for proof in ({"Cookie": session}, basic(right)):
        answer = await s.http.post(TOKEN, headers={**proof, **given})
        assert answer.status_code == status, answer.text
        if status == 403:
            refused(answer, 403, "cross_site")
    bearer = await s.http.post(TOKEN, headers={**s.operator, **given})
    assert bearer.status_code == 200  # no browser sends it by itself


@pytest.mark.parametrize("path", [LOGIN, LOGOUT])
async def test_other_pages_sign_nobody_in_or_out(s: Service, path: str) -> None:
    body: dict[str, Any] = {"json": {"token": operator_token(s.settings)}} if path == LOGIN else {}
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        refused(await s.http.post(path, headers=headers, **body), 403, "cross_site")
    assert (await s.http.post(path, headers={"Origin": "http://localhost"}, **body)).status_code == 204


async def test_public_address_is_an_own_origin(start: Starter) -> None:
    async with start(service={"public_url": "https://img.example/pics"}) as s:
        headers = {**basic(operator_token(s.settings)), **OWN, "Origin": "https://img.example"}
        assert (await s.http.post(TOKEN, headers=headers)).status_code == 200


async def test_public_reading_opens_what_is_read_only(start: Starter) -> None:
    async with start(operator={"public": True}) as s:
        data = await s.http.get(DATA)
        assert data.status_code == 200
        assert (data.json()["operator"]["signed_in"], data.json()["operator"]["may_act"]) == (False, False)
        assert (await s.http.get("/dashboard", headers={"Accept": "text/html"})).status_code == 200
        refused(await s.http.get("/api/v1/operator/jobs"), 401, "operator_required")
        refused(await s.http.post(TOKEN, headers=OWN), 401, "operator_required")
        refused(await s.http.get(DATA, headers={"Authorization": "Bearer wrong"}), 401, "operator_refused")
        job = await s.completed(TINY)
        refused(await s.http.post(f"/api/v1/operator/jobs/{job['job_id']}/retry"), 401, "operator_required")


async def test_upload_token_uploads_and_opens_nothing_else(s: Service) -> None:
    given = (await s.http.post(TOKEN, headers=s.operator)).json()
    assert given.keys() == {"token", "sub", "expires_at", "expires_in"}
    assert (given["sub"], given["expires_in"]) == ("operator", 600)
    bearer = {"Authorization": f"Bearer {given['token']}"}
    files = {"file": ("p.jpg", TINY, "image/jpeg")}
    answer = await s.http.post("/api/v1/images/upload", data={"bucket": "b"}, files=files, headers=bearer)
    assert answer.status_code == 202
    refused(await s.http.get(DATA, headers=bearer), 401, "operator_refused")


async def test_nothing_secret_in_logs_and_answers(tmp_path: Path, start: Starter) -> None:
    secret = "operator-secret-0123456789-0123456789"
    async with start(operator={"token": secret}) as s:
        assert not (s.settings.data / "operator_token").exists()
        code = s.login_code()
        with capture_logs() as logs:
            session = (await login(s, code=code)).headers["Set-Cookie"].split(";")[0].split("=")[1]
            answers = [
                await s.http.get(DATA),
                await s.http.get("/dashboard"),
                await s.http.get(DATA, headers=s.operator),
            ]
            answers.append(await s.http.post(TOKEN, headers={**s.operator, **OWN}))
            token = answers[-1].json()["token"]
        for hidden in (secret, code, session, token):
            assert hidden not in str(logs)
        for answer in answers[:3]:
            assert answer.status_code == 200
            assert secret not in answer.text and session not in answer.text
        assert answers[0].json()["configuration"]["operator"]["token"] == "configured"
