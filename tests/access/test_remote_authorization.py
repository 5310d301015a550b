"""Asking a real authorization server that answers well, badly, slowly, or not at all."""

import asyncio
import gzip
import ssl
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
from imgsvc.access.permissions import Unavailable
from imgsvc.access.remote_permissions import RETRY_SECONDS, RemoteAuthorization
from imgsvc.settings.auth import Auth
from tests.support import authorization_server as says
from tests.support.authorization_server import Act, answering, authorization_server
from tests.support.remote_authorization import LIMIT_SECONDS, UPLOAD, remote, tried
from tests.support.speed import within


def own_certificate(folder: Path) -> Path:
    """Key and certificate of 127.0.0.1 in one file, self-signed."""
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
        after = asyncio.create_task(one.allowed(*UPLOAD))  # makes a new call, beside the earlier one
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


async def test_closing_ends_what_is_on_its_way() -> None:
    async with authorization_server(says.stall) as server:
        auth = Auth(permissions="remote", api_url=server.url, api_timeout=600)
        with within(LIMIT_SECONDS):
            async with RemoteAuthorization.opened(auth) as one:
                waiting = asyncio.create_task(tried(one))
                await server.arrived.acquire()
            assert await waiting is None
