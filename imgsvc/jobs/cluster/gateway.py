"""The gateway: a process without secrets but its TLS key, in which the client of the Dask cluster lives.

`python -m imgsvc.jobs.cluster.gateway PARENT` reads lines from the service and writes lines to it (`messages`). It
ends with the connection to the scheduler, or with the service.
"""

import asyncio
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from urllib.parse import urlsplit

from ..lanes import libc, process_limits
from .lines import tell
from .messages import Connected, Ended, Start, Unreachable, word

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 10.0
CONNECT_SECONDS = 5.0


def main() -> None:
    _harden(int(sys.argv[1]))
    start = Start.model_validate_json(sys.stdin.buffer.readline())
    host, port = _reached(start.scheduler)
    try:
        reason = _connect(start, host, port)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    tell(Ended(reason=word(reason)))
    os._exit(0)  # threads of the client may hang


def _harden(parent: int) -> None:
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    process_limits.tie_to(parent)
    libc.return_large_blocks()
    with suppress(OSError):
        libc.call("prctl", process_limits.PR_SET_DUMPABLE, 0, 0, 0, 0)


def _reached(scheduler: str) -> tuple[str, int]:
    """The scheduler's address, as numbers, and port, once it accepts connections. Nothing of Dask is loaded before."""
    where, pause, reported = urlsplit(scheduler), FIRST_PAUSE_SECONDS, ""
    assert where.hostname and where.port
    while True:
        try:
            with socket.create_connection((where.hostname, where.port), CONNECT_SECONDS) as connection:
                return str(connection.getpeername()[0]), where.port
        except OSError as error:
            reason = word(f"{scheduler}: {error.strerror or error}")
        if reason != reported:
            tell(Unreachable(reason=reason))
            reported = reason
        time.sleep(pause)
        pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)


def _connect(start: Start, host: str, port: int) -> str:
    """Load Dask, enter the cage, and pass tickets on until the connection is lost. Returns why it ended."""
    from . import dask_client, dask_setup
    from .gateway_cage import enter

    dask_setup.configure()
    known = dask_setup.fingerprint()
    security = dask_setup.LoadedSecurity(dask_setup.security(start.ca_file, start.certfile, start.keyfile))
    scheme = start.scheduler.partition("://")[0]
    address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    dask_client.prepare()
    in_force, missing = enter(port, start.cage)
    connected = Connected(fingerprint=known, cage=in_force, missing=word(missing))
    return loop.run_until_complete(dask_client.run(address, security, connected))


if __name__ == "__main__":
    main()
