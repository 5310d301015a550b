"""Dask as this service uses it: settings, certificates, names of resources. Imports `distributed`, which is optional.

See https://distributed.dask.org/en/stable/tls.html and …/resources.html.
"""

import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import socket
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import dask.config
import dask.utils
import distributed.comm.utils
import distributed.scheduler
import distributed.utils
import distributed.worker
import distributed.worker_state_machine
from distributed.security import Security

from ... import __version__
from ...imaging.decoder import codec_versions

P = ParamSpec("P")
T = TypeVar("T")
PACKAGE = Path(__file__).parents[2]
OF_A_TICKET = ("cluster/ticket.py", "cluster/performer.py", "lanes/messages.py", "lanes/task.py")
PLUGINS = ("pillow-avif-plugin", "pillow-heif")  # what has one of them must have it everywhere
MEGABYTES = "imgsvc_mb"  # the resource by which tickets are admitted
KEYS_SPLIT = 100  # Dask remembers the prefixes of 100,000 keys, and each ticket has a key of its own
CONFIG = {
    "distributed.scheduler.work-stealing": False,
    # A ticket whose worker has gone is given back to the service, which knows whether it still wants it.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-ttl": "30s",
    "distributed.scheduler.http.routes": ["distributed.http.health", "distributed.http.scheduler.prometheus"],
    "distributed.scheduler.dashboard.status.task-stream-length": 0,
    "distributed.scheduler.validate": False,
    "distributed.diagnostics.computations.max-history": 1,
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.admin.log-length": 100,
    "distributed.admin.low-level-log-length": 0,  # of batches of messages: the more there is to do, the larger
    "distributed.admin.system-monitor.log-length": 10,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.tick.interval": "1s",  # 20 ms by default: fifty wake-ups a second, in each idle process
    "distributed.admin.tick.limit": "1h",
    "distributed.comm.retry.count": 0,
    "distributed.comm.timeouts.connect": "10s",
    "distributed.comm.timeouts.tcp": "15s",
    "distributed.comm.compression": False,
    "distributed.diagnostics.nvml": False,
}


def configure() -> None:
    """Take Dask's settings from this module, and not from files or the environment of the machine.

    Nothing of Dask's grows with the number of tickets then.
    """
    dask.config.set(CONFIG)
    logging.getLogger("distributed").setLevel(logging.WARNING)
    logging.getLogger("distributed.shuffle").setLevel(logging.ERROR)
    split = functools.lru_cache(KEYS_SPLIT)(dask.utils.key_split.__wrapped__)
    users = (distributed.utils, distributed.scheduler, distributed.worker, distributed.worker_state_machine)
    for module in (dask.utils, *users):
        vars(module)["key_split"] = split
    # Nothing here is large enough for a thread of its own: neither a message, whose objects Dask would walk through to
    # learn its size, nor the graph of a ticket, which is one task.
    vars(distributed.comm.utils)["OFFLOAD_THRESHOLD"] = 0
    vars(distributed.scheduler)["offload"] = _at_once


async def _at_once(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return function(*args, **kwargs)


def security(ca_file: str, certfile: str, keyfile: str) -> Security:
    """One certificate for every role; without files none, for tcp://. Raises OSError or ssl.SSLError when used."""
    if not ca_file:
        return Security(require_encryption=False)
    roles = ("client", "scheduler", "worker")
    certificates = {f"tls_{role}_cert": certfile for role in roles} | {f"tls_{role}_key": keyfile for role in roles}
    return Security(require_encryption=True, tls_ca_file=ca_file, **certificates)


def fingerprint() -> str:
    """What makes two machines render the same bytes from one ticket: the program, Pillow, its libraries and plugins.

    Of the program the version, and every line that makes pixels or is part of a ticket.
    """
    made_with = [__version__, platform.machine(), codec_versions(), [_installed(name) for name in PLUGINS]]
    digest = hashlib.sha256(json.dumps(made_with).encode())
    for path in (*sorted((PACKAGE / "imaging").glob("*.py")), *(PACKAGE / "jobs" / one for one in OF_A_TICKET)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def places_of(known: str) -> str:
    """The resource that a worker of this fingerprint has as many of as it has processes."""
    return f"imgsvc-{known}"


def machine_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


class LoadedSecurity(Security):  # type: ignore[misc]  # distributed has no types
    """Certificates that were read beforehand: the process may not open them again."""

    def __init__(self, given: Security) -> None:
        super().__init__(require_encryption=given.require_encryption)
        self._arguments = given.get_connection_args("client")

    __slots__ = ("_arguments",)

    def get_connection_args(self, role: str) -> dict[str, object]:  # noqa: ARG002
        return dict(self._arguments)
