"""The listening socket: of an address and port, or a Unix socket (unix(7)) for a proxy on the same machine."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from ..settings.server import UNIX, Server

BACKLOG = 1024  # connections that wait to be accepted
UNSENT_BYTES = 256 * 1024  # of one connection in the kernel, beyond the bytes in flight
PROBE_SECONDS = 1.0


class CantStart(Exception):
    """The service could not start. The message gives the reason in one line."""


@contextlib.contextmanager
def listening(server: Server) -> Iterator[socket.socket]:
    """Listen. A Unix socket is removed in the end, unless another process has replaced it. Raises CantStart."""
    if not server.unix_path:
        with contextlib.closing(_listen(server)) as listener:
            yield listener
        return
    path = Path(server.unix_path)
    with contextlib.closing(_listen_unix(server, path)) as listener:
        made = path.lstat().st_ino
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                if path.lstat().st_ino == made:
                    path.unlink()


def address_of(server: Server, listener: socket.socket) -> str:
    """Where the service listens: a URL, or unix:/PATH."""
    if server.unix_path:
        return f"{UNIX}{server.unix_path}"
    host, port = listener.getsockname()[:2]
    return f"{'https' if server.certfile else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def local_address(address: str) -> str:
    """The address that this machine reaches it by: one that stands for all interfaces is none."""
    return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


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
        with contextlib.suppress(AttributeError, OSError):  # otherwise megabytes of each response wait in the kernel
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        listener.bind((server.host, server.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CantStart(f"[server] host and port = {server.host}:{server.port}: {error.strerror}") from None
    return listener


def _listen_unix(server: Server, path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(str(path))
        path.chmod(int(server.unix_mode, 8))  # before it listens, so no client can connect in between
        listener.listen(BACKLOG)
    except (OSError, CantStart) as error:
        listener.close()
        reason = str(error) if isinstance(error, CantStart) else error.strerror or error
        raise CantStart(f"[server] host (IMGSVC_SERVER_HOST) = {server.host!r}: {reason}") from None
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket of a service that was killed. Raises CantStart for anything else, and OSError."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise CantStart("there is something else of this name, and no socket")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass  # it is busy
    raise CantStart("another process listens there")
