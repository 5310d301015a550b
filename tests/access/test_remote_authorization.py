"""Asking a real authorization server that answers well, badly, slowly, or not at all."""

import asyncio
import gzip
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from imgsvc.access.authorization_client import MAX_ANSWER_BYTES
from imgsvc.access.circuit_breaker import Breaker
from imgsvc.access.permissions import Unavailable
from imgsvc.access.remote_permissions import RETRY_SECONDS, RemoteAuthorization
from imgsvc.settings.auth import Auth
from tests.support import authorization_server as says
from tests.support.authorization_server import Act, AuthorizationServer, answering, authorization_server
from tests.support.speed import within

UPLOAD = ("org", "alice", "image:upload")
LIMIT_SECONDS = 10


@asynccontextmanager
async def remote(act: Act = says.GRANT, **auth: Any) -> AsyncIterator[tuple[RemoteAuthorization, AuthorizationServer]]:
    async with authorization_server(act) as server:
        given = Auth(**{"permissions": "remote", "api_url": server.url, "api_timeout": 5, **auth})
        async with RemoteAuthorization.opened(given, clock) as one:
            with within(LIMIT_SECONDS):
                yield one, server


async def tried(one: RemoteAuthorization, *question: str) -> bool | None:
    """None: unavailable."""
    try:
        return await one.allowed(*(question or UPLOAD))
    except Unavailable:
        return None


def own_certificate(folder: Path) -> Path:
    """Key and certificate of 127.0.0.1 in one file, signed by nobody else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authorization")])
    began = datetime.now(UTC) - timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(began)
        .not_valid_after(began + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "authorization.pem"
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(key.private_bytes(*plain) + certificate.public_bytes(serialization.Encoding.PEM))
    return file


class Clock:
    """The real one, until a test moves it on."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


clock = Clock()


def skip_the_wait(breaker: Breaker) -> None:
    clock.ahead += breaker.timeout_seconds


async def test_the_call_is_the_agreed_one() -> None:
    async with remote() as (one, server):
        with structlog.contextvars.bound_contextvars(trace_id="trace-1"):
            assert await one.allowed("organisé/1", "a b:c", "image:upload") is True
        (asked,) = server.asked
        assert asked.path == "/api/v1/authorization/check"
        assert asked.body == {"org_id": "organisé/1", "user_id": "a b:c", "permission": "image:upload"}
        assert asked.headers["x-trace-id"] == "trace-1"
        assert asked.headers["content-type"] == "application/json"
        assert asked.headers["accept-encoding"] == "identity"
        assert "authorization" not in asked.headers
        await one.allowed(*UPLOAD)
        assert "x-trace-id" not in server.asked[1].headers


async def test_path_prefix_and_credentials_of_the_url_are_used() -> None:
    async with authorization_server() as server:
        url = f"http://me:se%40cret@127.0.0.1:{server.port}/auth/"
        async with RemoteAuthorization.opened(Auth(permissions="remote", api_url=url)) as one:
            assert await one.allowed(*UPLOAD) is True
        assert server.asked[0].path == "/auth/api/v1/authorization/check"
        assert server.asked[0].headers["authorization"] == "Basic bWU6c2VAY3JldA=="


async def test_proxies_and_netrc_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with remote() as (one, server):
        assert await one.allowed(*UPLOAD) is True
        assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize("trusted", [False, True])
async def test_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    file = own_certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    async with authorization_server(tls=tls) as server:
        async with RemoteAuthorization.opened(Auth(permissions="remote", api_url=server.url)) as one:
            assert await tried(one) is (True if trusted else None)
        assert len(server.asked) == (1 if trusted else 0)


ANSWERS: dict[str, tuple[Act, bool | None]] = {
    "grant": (says.GRANT, True),
    "no member": (says.SILENT_GRANT, True),
    "empty object": (answering(200, b"{}"), True),
    "with a space around": (answering(200, b' \n{"allowed": true}\n'), True),
    "200 and no": (says.SAY_NO, False),
    "403": (says.FORBID, False),
    "403 that says yes": (answering(403, b'{"allowed": true}'), False),
    "403 whose body never comes": (answering(403, b"", length=1000), False),
    "null": (answering(200, b'{"allowed": null}'), None),
    "text": (answering(200, b'{"allowed": "true"}'), None),
    "number": (answering(200, b'{"allowed": 1}'), None),
    "list": (answering(200, b'[{"allowed": true}]'), None),
    "bare true": (answering(200, b"true"), None),
    "garbage": (answering(200, b"<html>welcome</html>"), None),
    "not UTF-8": (answering(200, b'{"allowed": true, "x": "\xff"}'), None),
    "cut short": (answering(200, b'{"allowed": true'), None),
    "nothing": (answering(200, b""), None),
    "nested": (answering(200, b'{"allowed":true,"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}"), None),
    "compressed": (answering(200, gzip.compress(b'{"allowed": true}'), "Content-Encoding: gzip"), None),
    "large": (answering(200, b'{"allowed": true}' + b" " * MAX_ANSWER_BYTES), None),
    "endless": (says.flood, None),
    "201": (answering(201, b'{"allowed": true}'), None),
    "204": (answering(204, b""), None),
    "redirect": (answering(307, b"", "Location: /elsewhere"), None),
    "400": (answering(400, b'{"allowed": true}'), None),
    "401": (answering(401), None),
    "404": (answering(404), None),
    "429": (answering(429), None),
    "500": (answering(500, b'{"allowed": true}'), None),
    "503": (answering(503), None),
    "reset": (says.reset, None),
    "hang up": (says.hang_up, None),
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_answer(kind: str) -> None:
    act, expected = ANSWERS[kind]
    async with remote(act) as (one, server):
        with capture_logs() as logs:
            assert await tried(one) is expected
            assert await tried(one) is expected
        assert [entry["event"] for entry in logs] == ([] if expected is not None else ["authorization_unavailable"])
        # What is known is kept; what is not known is asked again, and a redirect is followed nowhere.
        assert [asked.path for asked in server.asked] == [says.CHECK] * (2 if expected is None else 1)
        assert one.breaker.failures == (2 if expected is None else 0)
        assert len(one.answers) == (0 if expected is None else 1)


@pytest.mark.parametrize("act", [says.stall, says.drip])
async def test_time_limit_is_for_the_whole_call(act: Act) -> None:
    async with remote(act, api_timeout=0.2) as (one, _):
        began = anyio.current_time()
        assert await tried(one) is None
        assert 0.2 <= anyio.current_time() - began < 2
        assert one.breaker.failures == 1


async def test_nobody_listens_and_then_somebody_does() -> None:
    async with remote() as (one, server):
        await server.stop()
        with pytest.raises(Unavailable) as raised:
            await one.allowed(*UPLOAD)
        assert raised.value.retry_after == RETRY_SECONDS
        await server.start()
        assert await tried(one) is True


async def test_connection_that_the_server_closed_meanwhile_costs_nothing() -> None:
    async with remote() as (one, server):
        assert await tried(one, "org", "a", "image:upload") is True
        await server.stop()
        await server.start()
        assert await tried(one, "org", "b", "image:upload") is True
        assert one.breaker.failures == 0


async def test_200_at_once_make_one_call() -> None:
    async with remote() as (one, server):
        server.gate.clear()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(one.allowed(*UPLOAD)) for _ in range(200)]
            await server.arrived.acquire()
            server.gate.set()
        assert [task.result() for task in waiting] == [True] * 200
        assert server.questions == [UPLOAD]
        assert await one.allowed(*UPLOAD) is True
        assert len(server.asked) == 1


async def test_200_at_once_fail_together_and_count_once() -> None:
    async with remote(answering(500)) as (one, server):
        server.gate.clear()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(tried(one)) for _ in range(200)]
            await server.arrived.acquire()
            server.gate.set()
        assert {task.result() for task in waiting} == {None}
        assert (len(server.asked), one.breaker.failures) == (1, 1)


@pytest.mark.parametrize("gone", [0, 1, "all"])
async def test_whoever_goes_away_ends_nobodys_call(gone: int | str) -> None:
    async with remote() as (one, server):
        server.gate.clear()
        waiting = [asyncio.create_task(one.allowed(*UPLOAD)) for _ in range(3)]
        await server.arrived.acquire()
        left = [] if gone == "all" else [task for place, task in enumerate(waiting) if place != gone]
        for task in waiting:
            if task not in left:
                task.cancel()
        await asyncio.wait(set(waiting) - set(left))
        server.gate.set()
        assert await asyncio.gather(*left) == [True] * len(left)
        assert await one.allowed(*UPLOAD) is True
        assert len(server.asked) == 1


async def test_a_colon_in_a_name_is_no_border() -> None:
    async def only_the_first(asked: says.Asked, writer: asyncio.StreamWriter) -> None:
        known = asked.body["org_id"] == "a:b" and asked.body["user_id"] == "c"
        await (says.GRANT if known else says.SAY_NO)(asked, writer)

    async with remote(only_the_first) as (one, server):
        for _ in range(2):
            assert await one.allowed("a:b", "c", "image:upload") is True
            assert await one.allowed("a", "b:c", "image:upload") is False
            assert await one.allowed("a:b:c", "image", "upload") is False
        assert len(server.asked) == 3


async def test_cache_off_asks_every_time() -> None:
    async with remote(cache_enabled=False) as (one, server):
        assert [await one.allowed(*UPLOAD) for _ in range(3)] == [True] * 3
        assert len(server.asked) == 3


async def test_drop_forgets_one_user() -> None:
    async with remote() as (one, server):
        for user in ("alice", "bob"):
            for permission in ("image:upload", "image:read"):
                await one.allowed("org", user, permission)
        server.act = says.SAY_NO
        assert one.drop("org", "alice") == 2
        assert await one.allowed("org", "alice", "image:upload") is False
        assert await one.allowed("org", "bob", "image:upload") is True


async def test_answer_that_was_on_its_way_at_a_drop_is_not_remembered() -> None:
    async with remote() as (one, server):
        server.gate.clear()
        before = asyncio.create_task(one.allowed(*UPLOAD))
        await server.arrived.acquire()
        assert one.drop("org", "alice") == 0
        after = asyncio.create_task(one.allowed(*UPLOAD))  # asks anew, beside the call of before
        await server.arrived.acquire()
        server.act = says.SAY_NO
        server.gate.set()
        await asyncio.gather(before, after)
        assert len(server.asked) == 2
        assert await one.allowed(*UPLOAD) is False

        server.gate.clear()
        one.drop("org", "alice")
        late = asyncio.create_task(one.allowed(*UPLOAD))
        await server.arrived.acquire()
        one.drop("org", "alice")
        server.gate.set()
        await late
        assert len(one.answers) == 0


async def test_call_from_before_a_drop_does_not_take_the_place_of_the_one_after() -> None:
    first_may_end = asyncio.Event()

    async def first_waits(asked: says.Asked, writer: asyncio.StreamWriter) -> None:
        if asked.headers.get("x-trace-id") == "first":
            await first_may_end.wait()
        else:
            await second_may_end.wait()
        await says.GRANT(asked, writer)

    second_may_end = asyncio.Event()
    async with remote(first_waits) as (one, server):
        with structlog.contextvars.bound_contextvars(trace_id="first"):
            before = asyncio.create_task(one.allowed(*UPLOAD))
        await server.arrived.acquire()
        one.drop("org", "alice")
        after = [asyncio.create_task(one.allowed(*UPLOAD))]
        await server.arrived.acquire()
        first_may_end.set()
        assert await before is True
        after.append(asyncio.create_task(one.allowed(*UPLOAD)))  # joins the call that is still on its way
        await asyncio.sleep(0)
        second_may_end.set()
        assert await asyncio.gather(*after) == [True, True]
        assert len(server.asked) == 2


async def test_late_answer_of_before_the_outage_is_believed_and_ends_nothing() -> None:
    slow = asyncio.Event()

    async def slow_for_alice(asked: says.Asked, writer: asyncio.StreamWriter) -> None:
        if asked.body["user_id"] == "alice":
            await slow.wait()
            await says.GRANT(asked, writer)
        else:
            await answering(500)(asked, writer)

    async with remote(slow_for_alice, breaker_threshold=2) as (one, server):
        late = asyncio.create_task(tried(one))
        await server.arrived.acquire()
        with capture_logs() as logs:
            assert [await tried(one, "org", user, "image:upload") for user in "bcd"] == [None] * 3
            slow.set()
            assert await late is True
            assert await tried(one, "org", "bob", "image:upload") is None
        assert [entry["event"] for entry in logs] == ["authorization_unavailable"]
        assert (one.breaker.state, len(server.asked)) == ("open", 3)
        assert await tried(one) is True  # it is remembered


async def test_open_breaker_makes_no_call_and_says_when_to_come_back() -> None:
    async with remote(answering(500), breaker_timeout=40) as (one, server):
        for n in range(5):
            assert await tried(one, "org", f"user-{n}", "image:upload") is None
        assert one.breaker.state == "open"
        with pytest.raises(Unavailable) as raised:
            await one.allowed(*UPLOAD)
        assert 39 <= raised.value.retry_after <= 40
        server.act = says.GRANT
        assert await asyncio.gather(*(tried(one, "org", f"u{n}", "image:upload") for n in range(100))) == [None] * 100
        assert len(server.asked) == 5


async def test_what_is_known_is_answered_while_the_server_is_away() -> None:
    async with remote(breaker_threshold=1) as (one, server):
        assert await tried(one) is True
        await server.stop()
        assert await tried(one, "org", "bob", "image:upload") is None
        assert one.breaker.state == "open"
        assert await tried(one) is True
        await server.start()


async def test_denial_is_a_success() -> None:
    async with remote(answering(500)) as (one, server):
        for n in range(20):
            server.act = says.FORBID if n % 5 == 4 else answering(500)
            await tried(one, "org", f"user-{n}", "image:upload")
        assert (one.breaker.state, one.breaker.failures) == ("closed", 0)
        assert len(server.asked) == 20


async def test_exactly_one_of_100_is_the_probe() -> None:
    async with remote(answering(500), breaker_threshold=1) as (one, server):
        assert await tried(one) is None
        skip_the_wait(one.breaker)
        server.act = says.GRANT
        server.gate.clear()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(tried(one, "org", f"user-{n}", "image:upload")) for n in range(100)]
            await server.arrived.acquire()  # of the call that opened it
            await server.arrived.acquire()
            assert str(one.breaker.state) == "half_open"
            server.gate.set()
        assert sorted(task.result() is True for task in waiting) == [False] * 99 + [True]
        assert len(server.asked) == 2
        assert one.breaker.state == "closed"
        assert await tried(one, "org", "user-99", "image:upload") is True


async def test_failed_probe_opens_it_again() -> None:
    async with remote(answering(500), breaker_threshold=2) as (one, server):
        assert [await tried(one) for _ in range(2)] == [None] * 2
        skip_the_wait(one.breaker)
        assert await tried(one) is None
        assert (one.breaker.state, one.breaker.failures, len(server.asked)) == ("open", 3, 3)
        assert await tried(one) is None
        assert len(server.asked) == 3


async def test_recovers_by_itself() -> None:
    async with remote(breaker_threshold=1, breaker_timeout=0.1) as (one, server):
        await server.stop()
        assert await tried(one) is None
        await server.start()
        while await tried(one) is None:
            await anyio.sleep(0.01)
        assert (one.breaker.state, len(server.asked)) == ("closed", 1)


async def test_fail_open_lets_through_with_a_warning_and_remembers_nothing() -> None:
    async with remote(answering(500), fail_open=True, breaker_threshold=2) as (one, server):
        with capture_logs() as logs:
            assert [await one.allowed(*UPLOAD) for _ in range(4)] == [True] * 4
        warned = [entry for entry in logs if entry["event"] == "allowed_without_authorization"]
        assert [entry["log_level"] for entry in warned] == ["warning"] * 4
        assert {(entry["org_id"], entry["user_id"], entry["permission"]) for entry in warned} == {UPLOAD}
        assert (len(server.asked), len(one.answers)) == (2, 0)
        server.act = says.SAY_NO
        skip_the_wait(one.breaker)
        assert await one.allowed(*UPLOAD) is False


async def test_log_tells_of_an_outage_once_and_of_its_end() -> None:
    async with remote(answering(500), breaker_threshold=2) as (one, server):
        with capture_logs() as logs:
            for _ in range(5):
                await tried(one)
            server.act = says.GRANT
            skip_the_wait(one.breaker)
            assert await tried(one) is True
        assert [(entry["event"], entry["log_level"]) for entry in logs] == [
            ("authorization_unavailable", "warning"),
            ("authorization_available", "info"),
        ]
        assert logs[0]["reason"] == "it answered 500"
        assert logs[1]["unanswered"] == 5


async def test_closing_ends_what_is_on_its_way() -> None:
    async with authorization_server(says.stall) as server:
        auth = Auth(permissions="remote", api_url=server.url, api_timeout=600)
        with within(LIMIT_SECONDS):
            async with RemoteAuthorization.opened(auth) as one:
                waiting = asyncio.create_task(tried(one))
                await server.arrived.acquire()
            assert await waiting is None
