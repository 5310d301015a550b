"""Runs the application under Hypercorn, in this process, until a signal stops it."""

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
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import structlog
import uvloop
from hypercorn.config import Config
from starlette.applications import Starlette

from ..access.operator_auth import login_code, operator_token
from ..jobs.instance import InstanceMismatch
from ..jobs.lanes.libc import return_large_blocks
from ..jobs.lanes.memory_budget import MemoryTooSmall
from ..jobs.lock import DataFolderInUse, LocksUnavailable
from ..jobs.table.database import NoWriteAheadLog, SchemaTooNew
from ..jobs.table.writer import DatabaseUnavailable
from ..settings import Settings, SettingsError, ignored_service_links
from ..settings.server import UNIX, Server
from ..storage.durable_files import ownership
from ..storage.mounts import mount_of
from ..telemetry import logs
from .app import create_app
from .hypercorn_fixes import warn_if_untried
from .hypercorn_fixes.server import HttpServer, Patience
from .listener import BACKLOG, CantStart, address_of, listening, local_address
from .process_privacy import deny_tracing, keep_only
from .runner import wind_down

log = structlog.get_logger()

# The environment variables that this process and its libraries may need after the settings are read. All others are
# removed, so that no child process inherits a secret.
KEPT_ENVIRONMENT = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TERM|TMPDIR|PYTHON\w+|VIRTUAL_ENV|LD_\w+|MALLOC_\w+|SSL_CERT_\w+|\w+_proxy|\w+_PROXY"
    r"|AWS_(?!SECRET_ACCESS_KEY|SESSION_TOKEN)\w+|NOTIFY_SOCKET|XDG_\w+|COVERAGE_\w+"
)
HUNG_SECONDS = 0.5  # for threads that end soon


# Their messages are whole sentences.
REASONS = (
    DataFolderInUse,
    LocksUnavailable,
    NoWriteAheadLog,
    InstanceMismatch,
    SchemaTooNew,
    MemoryTooSmall,
    SettingsError,
)


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; a second signal ends at once. Returns the exit status. Raises CantStart."""
    _prepare_process(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(settings))
        except Exception as error:
            cause = _cause(error)
            reason = _explained(cause, settings)
            if reason is None:
                raise
            raise CantStart(reason) from (error if isinstance(cause, OSError) else None)
    _end_beside_hung_threads()
    return 0


def _prepare_process(settings: Settings) -> None:
    """Set up the process before it has threads: log, limits, environment, privacy."""
    logs.configure(settings.log)
    return_large_blocks()
    if settings.server.http2:
        log.warning("http2_ignored", reason="[server] http2 has no effect: HTTP/2 is the task of a proxy in front")
    if links := ignored_service_links():
        log.warning("service_links_ignored", names=links, reason="set enableServiceLinks: false in the pod's spec")
    warn_if_untried()
    if (mount := mount_of(settings.data)).is_network:
        words = "on a share the database's locks and syncs promise nothing: move it to a local disk (DATABASE_PATH)"
        log.warning("database_on_share", filesystem=mount.kind, mounted_at=str(mount.point), reason=words)
    _raise_file_limit()
    keep_only(KEPT_ENVIRONMENT)
    deny_tracing()


def _explained(cause: BaseException, settings: Settings) -> str | None:
    """The reason why the service could not start, in one line; None if it is a fault of the program."""
    if isinstance(cause, (CantStart, *REASONS)):
        return str(cause)
    if isinstance(cause, (sqlite3.Error, DatabaseUnavailable)):
        return f"[database] path (DATABASE_PATH) = {settings.database.path}: {cause}{_on_share(settings)}"
    if isinstance(cause, PermissionError) and cause.filename:
        return f"{cause.filename}: {cause.strerror} ({ownership(Path(os.fsdecode(cause.filename)))})"
    if isinstance(cause, OSError):
        return f"{cause.filename or 'the service'}: {cause.strerror or cause}"
    return None


def _on_share(settings: Settings) -> str:
    """The advice for a database that is on a share, whose locks and shared memory may be what failed."""
    mount = mount_of(settings.data)
    where = f" (it is on {mount.kind} mounted at {mount.point}: move it to a local disk)"
    return where if mount.is_network else ""


def _end_beside_hung_threads() -> None:
    """End the process at once if a thread still waits for a disk that does not respond.

    The interpreter would wait for the thread. Everything that matters is closed by now.
    """
    deadline = time.monotonic() + HUNG_SECONDS
    hung = [thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]
    for thread in hung:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in hung):
        log.warning("exited_with_hung_threads", threads=sum(thread.is_alive() for thread in hung))
        sys.stdout.flush()
        logs.flush()
        os._exit(0)


def _raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit: every connection and every variant being sent is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _cause(error: BaseException) -> BaseException:
    """The actual error inside of nested exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _serve(settings: Settings) -> None:
    stopped = asyncio.Event()
    with _signals(stopped):
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            with listening(settings.server) as listener:  # after the data folder's lock: a predecessor is gone by now
                await _answer(app, settings, listener, stopped)


async def _answer(app: Starlette, settings: Settings, listener: socket.socket, stopped: asyncio.Event) -> None:
    server, state = settings.server, app.state.service
    address = address_of(server, listener)
    state.lock.announce(local_address(address))
    if state.jobs.office is not None:
        state.jobs.office.serve_at(local_address(address))
    _announce(settings, address, state.lock.run)

    async def until_stopped() -> None:
        await stopped.wait()
        with contextlib.suppress(OSError):  # a failing disk must not prevent requeueing the jobs
            state.lock.announce("")
        wind_down(state)

    patience = Patience(server.answer_idle_seconds, server.answer_min_bytes_per_second)
    http = HttpServer(app, _hypercorn(server), patience)
    app.state.answer_memory.relieve = http.abort_slowest
    await http.run(listener, until_stopped)


@contextlib.contextmanager
def _signals(stopped: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def stop(name: str) -> None:
        if not stopped.is_set():
            log.info("stopping", signal=name)
            stopped.set()
        elif name != "SIGHUP":  # a closing terminal sends several
            _end_at_once()

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup(1) sets it
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop, number.name)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _end_at_once() -> NoReturn:
    """End at once. The workers end with this process; running jobs are replayed at the next start."""
    logs.flush()
    os._exit(1)


def _hypercorn(server: Server) -> Config:
    config = Config()
    config.backlog = BACKLOG
    config.errorlog = logging.getLogger("hypercorn.error")  # its warnings and tracebacks, as lines like ours
    config.accesslog = None
    config.include_server_header = False
    config.keep_alive_timeout = server.keep_alive_seconds
    config.h11_max_incomplete_size = server.max_header_kb * 1024
    config.graceful_timeout = server.graceful_seconds
    config.max_app_queue_size = 2  # bytes of the body and its end: an upload must not use more memory than it needs
    config.alpn_protocols = ["http/1.1"]
    if server.certfile:
        config.certfile, config.keyfile = server.certfile, server.keyfile
    return config


def _announce(settings: Settings, address: str, run: str) -> None:
    """Print where the service listens. A closed output does not stop the service."""
    try:
        print("\n".join(_announcement(settings, address, run)), flush=True)  # noqa: T201
    except OSError as error:
        log.warning("output_closed", reason=error.strerror)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter fails at its end


def _announcement(settings: Settings, address: str, run: str) -> list[str]:
    """The addresses, on a terminal with a sign-in code: elsewhere it would end up in a log."""
    command = "imgsvc" if os.path.basename(sys.argv[0]) == "imgsvc" else "./run"  # noqa: PTH119
    token = [f"make a token with   {command} token --sub NAME"] if settings.auth.own_keys else []
    public = settings.service.public_url or local_address(address)
    if public.startswith(UNIX):
        return [f"imgsvc listens on   {address}", *token, "for links           set PUBLIC_URL to the proxy's address"]
    link = f"{public}/dashboard"
    if sys.stdout.isatty():
        link += f"#code={login_code(operator_token(settings), run)}   (good for ten minutes, once)"
    else:
        link += f"   ({command.replace('./run', './run imgsvc')} dashboard prints a link that signs you in)"
    return [
        f"imgsvc listens on   {address}",
        f"API documentation   {public}/docs",
        *token,
        f"dashboard           {link}",
    ]
