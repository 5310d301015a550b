"""Each part of Hypercorn that is replaced: in the same case the plain one must misbehave, and ours must not.

Once an upgrade of Hypercorn or h11 behaves by itself, the test fails and names the fix to remove.
"""

import asyncio
import gc
import re
import ssl
import sys
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import h11
import pytest
import uvloop
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.worker_context import WorkerContext
from structlog.testing import capture_logs

from imgsvc.service import hypercorn_fixes
from imgsvc.service.hypercorn_fixes import TRIED_WITH, warn_if_untried
from imgsvc.service.hypercorn_fixes import server as server_fixes
from imgsvc.service.hypercorn_fixes.connection import PIECE_BYTES, Connection
from imgsvc.service.hypercorn_fixes.http1 import PARSED_BYTES
from imgsvc.service.hypercorn_fixes.waiting import LeanContext, Requests
from tests.service.both_servers import (
    FIXED_SECONDS,
    FOREVER_SECONDS,
    Application,
    EndlessApplication,
    ReceivingApplication,
    config,
    connections,
    is_so,
    limit,
    received,
    served,
    spoken,
    traced,
)
from tests.support.clients import asking, connected
from tests.support.speed import seconds
from tests.support.tls import certificate

RECEIVED_BYTES = 128 * 1024  # at a time
ROOT = Path(__file__).parents[2]
MANY = 20  # whose memory is compared with a limit for each
BODY = bytes(32 << 20)  # more than the kernel keeps for a client that does not read


def posted(length: int, more: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n" % (more, length)


# The cases. Each says whether the server behaves.


async def is_refused(sent: bytes, *, fixed: bool) -> bool:
    application = Application()
    written = b"".join(await spoken(application, sent, fixed=fixed))
    return not application.asked and written.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))


async def answers_h2c_as_http1(*, fixed: bool) -> bool:
    sent = (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    written = b"".join(await spoken(Application(), sent, fixed=fixed))
    return written.startswith(b"HTTP/1.1 200 ")


async def answers_websocket_as_http(*, fixed: bool) -> bool:
    sent = (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    application = Application()
    with suppress(Exception):  # the application speaks HTTP only
        await spoken(application, sent, fixed=fixed)
    return application.asked == ["http"]


async def writes_a_small_answer_at_once(*, fixed: bool) -> bool:
    return len(await spoken(Application(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", fixed=fixed)) == 1


@contextmanager
def given_to_h11() -> Iterator[list[int]]:
    """The bytes of each piece."""
    taken, receive = list[int](), h11.Connection.receive_data

    def receive_data(connection: h11.Connection, data: bytes) -> None:
        taken.append(len(data))
        receive(connection, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(h11.Connection, "receive_data", receive_data)
        yield taken


async def takes_a_body_past_h11(*, fixed: bool) -> bool:
    """All but its last piece."""
    application = ReceivingApplication()
    with given_to_h11() as taken:
        await spoken(application, posted(4 * RECEIVED_BYTES), *[bytes(RECEIVED_BYTES)] * 4, fixed=fixed)
    assert application.bodies == [bytes(4 * RECEIVED_BYTES)]
    return sum(taken) < 2 * RECEIVED_BYTES


async def gives_h11_little_at_once(*, fixed: bool) -> bool:
    """Of a chunked body that came in one large piece: h11 copies what it is given."""
    application = ReceivingApplication()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (4 * RECEIVED_BYTES)
    with given_to_h11() as taken:
        await spoken(application, head + bytes(4 * RECEIVED_BYTES) + b"\r\n0\r\n\r\n", fixed=fixed)
    assert application.bodies == [bytes(4 * RECEIVED_BYTES)]
    return max(taken) <= PARSED_BYTES


async def holds_a_piece_of_a_body(*, fixed: bool) -> bool:
    """While the client reads nothing."""
    async with connections(Application(BODY), config(), fixed=fixed) as (url, found, _):
        with asking(url, "/") as client:
            await received(client)
            return found[0].writer.transport.get_write_buffer_size() <= PIECE_BYTES


async def closes_once_the_client_has_left(*, fixed: bool) -> bool:
    """And not only when the keep-alive time is over."""
    settings = config(keep_alive_timeout=FOREVER_SECONDS)
    async with connections(Application(), settings, fixed=fixed) as (url, _, tasks):
        with asking(url, "/") as client:
            await received(client)
        return await is_so(tasks[0].done, limit(fixed=fixed))


async def frees_a_connection_at_its_end(*, fixed: bool) -> bool:
    """And not only at some later collection of cycles. Its client resets it."""
    gc.disable()
    try:
        async with connections(Application(), config(keep_alive_timeout=0.1), fixed=fixed) as (url, found, tasks):
            with asking(url, "/") as client:
                await received(client)
            await asyncio.wait(tasks, timeout=seconds(FIXED_SECONDS))
            ended = weakref.ref(found.pop())
            tasks.clear()
            return await is_so(lambda: ended() is None, limit(fixed=fixed))
    finally:
        gc.enable()


async def holds_little_for_a_connection_over_tls(*, fixed: bool) -> bool:
    """As far as it is allocated by Python's functions, which uvloop uses for its buffers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        context.load_cert_chain(*certificate(Path(folder)))
    async with connections(Application(), config(), fixed=fixed, tls=context) as (url, found, _):
        with traced() as bytes_held, ExitStack() as stack:
            for _ in range(MANY):
                stack.enter_context(await asyncio.to_thread(connected, url))
            assert await is_so(lambda: len(found) == MANY, seconds(5))
            return bytes_held() < MANY * 100_000


async def holds_little_for_an_event(*, fixed: bool) -> bool:
    context: Any = LeanContext(None) if fixed else WorkerContext(None)
    with traced() as bytes_held:
        events = [context.event_class() for _ in range(MANY)]
        return bytes_held() < len(events) * 500


async def holds_little_for_a_request(*, fixed: bool) -> bool:
    """While its application waits for a message."""
    kind: Any = Requests if fixed else TaskGroup
    settings = config()

    async def waits(_scope: Any, receive: Any, *_: Any) -> None:
        await receive()

    async def nothing(_: Any) -> None: ...

    async with kind(asyncio.get_running_loop()) as group:
        with traced() as bytes_held:
            puts = [await group.spawn_app(waits, settings, {}, nothing) for _ in range(MANY)]
            await asyncio.sleep(0)
            held = bytes_held()
        for put in puts:
            await put({"type": "http.disconnect"})
    return held < MANY * 3_000


async def gives_up_a_client_that_does_not_read(*, fixed: bool) -> bool:
    """Every limit that Hypercorn has is set."""
    application, settings = Application(BODY), config(keep_alive_timeout=0.2, read_timeout=0.2)
    async with served(application, settings, fixed=fixed) as (url, _, _):
        with asking(url, "/") as client:
            await received(client)
            return await is_so(application.ended.is_set, limit(fixed=fixed))


async def stops_beside(application: Callable[[], Application], *, fixed: bool) -> bool:
    made = application()
    async with served(made, config(graceful_timeout=0.1), fixed=fixed) as (url, stop, task):
        with asking(url, "/"):
            assert await is_so(lambda: bool(made.asked), seconds(5))
            stop.set()
            return await is_so(task.done, limit(fixed=fixed))


@dataclass(frozen=True)
class Case:
    """`fix` names what mends it in `hypercorn_fixes`; before Python `since` the plain one behaves too, on this loop."""

    fix: str
    behaves: Callable[..., Awaitable[bool]]
    since: tuple[int, int] = (3, 11)
    loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop


HOST = b"Host: a\r\n"
CASES = {
    "large head in one piece": Case(
        "StrictHead", partial(is_refused, b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 40_000 + b"\r\n\r\n")
    ),
    "line ended by LF": Case("StrictHead", partial(is_refused, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\nY: b\r\n\r\n")),
    "two lengths": Case(
        "StrictHead",
        partial(
            is_refused,
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ),
    "unknown version": Case("StrictHead", partial(is_refused, b"GET / HTTP/9.9\r\n" + HOST + b"\r\n")),
    "HTTP/2 from the first byte": Case("StrictHead", partial(is_refused, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
    "upgrade to HTTP/2": Case("Http1._check_protocol", answers_h2c_as_http1),
    "upgrade to WebSocket": Case("Http1._create_stream", answers_websocket_as_http),
    "head and body in two writes": Case("Http1._send_h11_event", writes_a_small_answer_at_once),
    "body of an upload": Case("Http1.handle", takes_a_body_past_h11),
    "large piece of a chunked body": Case("Http1.handle", gives_h11_little_at_once),
    "whole body in the transport": Case("Connection.protocol_send", holds_a_piece_of_a_body),
    "client that has left": Case("Connection.run", closes_once_the_client_has_left),
    "connection that has ended": Case("Connection._break_cycles", frees_a_connection_at_its_end),
    "buffers of TLS": Case("TlsSession", holds_little_for_a_connection_over_tls),
    "event of a connection": Case("LeanContext", holds_little_for_an_event),
    "queue of a request": Case("Requests", holds_little_for_a_request),
    "client that does not read": Case("HttpServer._watch", gives_up_a_client_that_does_not_read),
    "stop beside a client that does not read": Case(
        "HttpServer._end", partial(stops_beside, partial(Application, BODY))
    ),
    # uvloop's `wait_closed` does not wait for clients up to 0.23.
    "stop beside an endless request": Case(
        "HttpServer.run", partial(stops_beside, EndlessApplication), (3, 12), asyncio.new_event_loop
    ),
}


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_fixes, "LOOK_SECONDS", 0.05)


def result(case: Case, *, fixed: bool) -> bool:
    with asyncio.Runner(loop_factory=case.loop) as runner:
        return bool(runner.run(cast(Any, case.behaves(fixed=fixed))))


@pytest.mark.parametrize("name", CASES)
def test_fixed(name: str) -> None:
    assert result(CASES[name], fixed=True)


@pytest.mark.parametrize("name", CASES)
def test_fix_is_needed(name: str) -> None:
    case = CASES[name]
    if sys.version_info < case.since:
        pytest.skip(f"misbehaves from Python {'.'.join(map(str, case.since))} on")
    if result(case, fixed=False):
        installed = f"Hypercorn {version('hypercorn')} with h11 {version('h11')}"
        pytest.fail(f"{installed} behaves without it ({name}): remove this fix: {case.fix}")


@pytest.mark.parametrize("size", [1, 3, 7, 64, 1000])
@pytest.mark.parametrize("more", [b"", b"Expect: 100-continue\r\n"], ids=["", "expect"])
async def test_bodies_in_pieces_of_any_size(size: int, more: bytes) -> None:
    """With the next request in the same piece as the end of a body, and in one chunked body."""
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n"
    sent = posted(300, more) + b"a" * 300 + posted(0, more) + posted(150) + b"b" * 150 + chunked + posted(1) + b"c"
    application = ReceivingApplication(5)
    written = await spoken(application, *(sent[at : at + size] for at in range(0, len(sent), size)), fixed=True)
    assert application.bodies == [b"a" * 300, b"", b"b" * 150, b"xyz", b"c"]
    assert b"".join(written).count(b"HTTP/1.1 200 ") == 5


@pytest.mark.parametrize("package", TRIED_WITH)
@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_locked_version_was_tried(lock: str, package: str) -> None:
    (locked,) = re.findall(rf"^{package}==(\S+)", (ROOT / lock).read_text(), re.MULTILINE)
    assert locked in TRIED_WITH[package]


@pytest.mark.parametrize("package", TRIED_WITH)
def test_warning_of_another_version(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(hypercorn_fixes, "TRIED_WITH", {one: (version(one),) for one in TRIED_WITH})
    with capture_logs() as logged:
        warn_if_untried()
    assert logged == []
    monkeypatch.setitem(hypercorn_fixes.TRIED_WITH, package, ("0.1", "0.2"))
    with capture_logs() as logged:
        warn_if_untried()
    (line,) = logged
    assert (line["event"], line["log_level"]) == (f"{package}_untried", "warning")
    assert (line["installed"], line["tried"]) == (version(package), "0.1, 0.2")


def test_progress_of_a_connection_that_has_just_closed_can_be_asked_for() -> None:
    """Else the watch for clients that do not read would end with the first of them."""

    async def asked() -> int:
        async with connections(Application(), config(), fixed=True) as (url, found, tasks):
            with asking(url, "/"):
                assert await is_so(lambda: bool(found), FIXED_SECONDS)
                found[0].writer.transport.abort()
                await asyncio.wait(tasks, timeout=FIXED_SECONDS)
                return cast(Connection, found[0]).taken_bytes()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(asked()) == 0
