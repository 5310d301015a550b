"""Running the application under Hypercorn, in this very process, until a signal says stop."""

import asyncio
import contextlib
import logging
import os
import re
import resource
import signal
import socket
import sqlite3
import sys
from collections.abc import Iterator
from typing import Any, NoReturn, cast

import h11
import structlog
import uvloop
from h2.events import DataReceived
from h2.exceptions import ProtocolError
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config
from hypercorn.events import Updated
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from starlette.types import ASGIApp, Receive, Scope, Send

from .access.operators import login_code, operator_token
from .app import create_app
from .jobs.budget import MemoryTooSmall
from .jobs.database import SchemaTooNew
from .jobs.instance import InstanceMismatch
from .jobs.lock import DataFolderInUse
from .settings import Server, Settings, SettingsError
from .telemetry import logs

log = structlog.get_logger()

# What this process and its libraries may need of the environment once the settings are read. The rest goes, so that
# no child inherits a secret.
KEPT_ENVIRONMENT = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TERM|TMPDIR|PYTHON\w+|VIRTUAL_ENV|LD_\w+|MALLOC_\w+|SSL_CERT_\w+|\w+_proxy|\w+_PROXY"
    r"|AWS_(?!SECRET_ACCESS_KEY|SESSION_TOKEN)\w+|NOTIFY_SOCKET|XDG_\w+|COVERAGE_\w+"
)
BACKLOG = 1024  # connections that wait to be accepted


async def _no_h2c(protocol: H11Protocol, event: h11.Request) -> None:
    """Ignore `Upgrade: h2c`: a proxy that checks paths would see one request and pass on a tunnel for any."""
    if event.method == b"PRI":  # HTTP/2 from the first byte is no upgrade
        await protocol.send(
            Updated(idle=True)
        )  # Hypercorn forgets it, and a client that then says nothing stays for ever
        await _check_protocol(protocol, event)


async def _no_websocket(protocol: H11Protocol, request: h11.Request) -> None:
    """Answer as if no upgrade had been asked for: there is no WebSocket here, and Hypercorn's refusal says nothing."""
    kept = [(name, value) for name, value in request.headers if name.lower() != b"upgrade"]
    plain = h11.Request(method=request.method, headers=kept, target=request.target, http_version=request.http_version)
    await _create_stream(protocol, plain)


_check_protocol, _create_stream = H11Protocol._check_protocol, H11Protocol._create_stream


async def _no_lost_streams(protocol: H2Protocol, events: list[Any]) -> None:
    """Let the rest of a body pass whose request was answered before its end.

    Hypercorn has forgotten the stream by then, and would end the whole connection with a KeyError. The stream is not
    reset: what is still on its way would be missing in the connection's flow control.
    """
    for event in events:
        if not isinstance(event, DataReceived) or event.stream_id in protocol.streams:
            await _handle_events(protocol, [event])
            continue
        connection = protocol.connection
        with contextlib.suppress(ProtocolError):
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        await protocol._flush()


_handle_events = H2Protocol._handle_events


class CantStart(Exception):
    """Why the service could not start, in one line."""


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; a second signal ends at once. Returns the exit status. Raises CantStart."""
    logs.configure(settings.log)
    _raise_file_limit()
    setattr(H11Protocol, "_check_protocol", _no_h2c)  # noqa: B010, these are Hypercorn's own methods
    setattr(H11Protocol, "_create_stream", _no_websocket)  # noqa: B010
    setattr(H2Protocol, "_handle_events", _no_lost_streams)  # noqa: B010
    for name in [name for name in os.environ if not KEPT_ENVIRONMENT.fullmatch(name)]:
        del os.environ[name]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(settings))
        except Exception as error:
            cause = _cause(error)
            if isinstance(cause, (CantStart, DataFolderInUse, InstanceMismatch, SchemaTooNew, MemoryTooSmall)):
                raise CantStart(str(cause)) from None
            if isinstance(cause, SettingsError):
                raise CantStart(str(cause)) from None
            if isinstance(cause, sqlite3.Error):
                raise CantStart(f"[database] path (DATABASE_PATH) = {settings.database.path}: {cause}") from None
            if isinstance(cause, OSError):
                raise CantStart(f"{cause.filename or 'the service'}: {cause.strerror or cause}") from error
            raise
    return 0


def _raise_file_limit() -> None:
    """Every connection is an open file, and so is every variant on its way: take all that the system grants."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _cause(error: BaseException) -> BaseException:
    """What really happened: task groups wrap it, one around the other."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _serve(settings: Settings) -> None:
    stopped = asyncio.Event()
    with _signals(stopped):
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            listener = _listen(settings.server)  # after the data folder's lock: a predecessor has left the port by now
            address = _address(settings.server, listener)
            app.state.parts.lock.announce(_local(address))
            _announce(settings, address, app.state.parts.lock.run)

            async def until_stopped() -> None:
                await stopped.wait()
                with contextlib.suppress(OSError):  # a disk that fails must not keep the jobs from being given back
                    app.state.parts.lock.announce("")
                app.state.parts.wind_down()

            served = cast(Any, _WithoutLifespan(app))  # Hypercorn's types of ASGI are narrower than Starlette's
            config = _hypercorn(settings.server, listener)
            serving = hypercorn_serve(served, config, shutdown_trigger=until_stopped, mode="asgi")
            await asyncio.create_task(serving)  # its own task: it leaves one with a cancellation still counted


@contextlib.contextmanager
def _signals(stopped: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def stop(name: str) -> None:
        if stopped.is_set():
            _end_at_once()
        log.info("stopping", signal=name)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _end_at_once() -> NoReturn:
    """The workers die with this process; what was running is replayed at the next start."""
    os._exit(1)


class _WithoutLifespan:
    """The lifespan is entered here and not by Hypercorn, so that a failed start is told in one line."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})


def _listen(server: Server) -> socket.socket:
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    for name in ("certfile", "keyfile"):
        path = getattr(server, name)
        if path and not os.access(path, os.R_OK):
            raise CantStart(f"[server] {name} (IMGSVC_SERVER_{name.upper()}) = {path!r}: can't be read")
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((server.host, server.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CantStart(f"[server] host and port = {server.host}:{server.port}: {error.strerror}") from None
    return listener


def _hypercorn(server: Server, listener: socket.socket) -> Config:
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.backlog = BACKLOG
    config.errorlog = logging.getLogger("hypercorn.error")  # its warnings and tracebacks, as lines like ours
    config.accesslog = None
    config.include_server_header = False
    config.keep_alive_timeout = server.keep_alive_seconds
    config.h11_max_incomplete_size = server.max_header_kb * 1024
    config.h2_max_header_list_size = server.max_header_kb * 1024
    config.graceful_timeout = server.graceful_seconds
    config.max_app_queue_size = 2  # reads of 64 KiB that wait for us: an upload must not hold more memory than it needs
    config.alpn_protocols = ["h2", "http/1.1"] if server.http2 else ["http/1.1"]
    if server.certfile:
        config.certfile, config.keyfile = server.certfile, server.keyfile
    return config


def _address(server: Server, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{'https' if server.certfile else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _local(address: str) -> str:
    """The address that this machine reaches it by: one that stands for all interfaces is none."""
    return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _announce(settings: Settings, address: str, run: str) -> None:
    """To a person at a terminal the link with a code too; anywhere else it would end in a log."""
    public = settings.service.public_url or _local(address)
    command = "imgsvc" if os.path.basename(sys.argv[0]) == "imgsvc" else "./run"  # noqa: PTH119
    link = f"{public}/dashboard"
    if sys.stdout.isatty():
        link += f"#code={login_code(operator_token(settings), run)}   (good for ten minutes, once)"
    else:
        link += f"   ({'imgsvc' if command == 'imgsvc' else './run imgsvc'} dashboard prints a link that signs you in)"
    lines = (
        f"imgsvc listens on   {address}",
        f"API documentation   {public}/docs",
        *([f"make a token with   {command} token --sub NAME"] if settings.auth.own_keys else []),
        f"dashboard           {link}",
    )
    print("\n".join(lines), flush=True)  # noqa: T201
