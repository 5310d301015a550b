"""Clients that ask and do not read, over bare sockets or TLS."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from urllib.parse import urlsplit

RECEIVE_BUFFER_BYTES = 4096


def asking(url: str, path: str) -> socket.socket:
    """A connection that has asked for `path`, with as small a receive buffer as the system allows."""
    client, host = connected(url), urlsplit(url).netloc
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return client


def connected(url: str) -> socket.socket:
    """A connection with this receive buffer; over TLS the certificate is not looked at."""
    host, port = urlsplit(url).netloc.split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    client.settimeout(10)
    client.connect((host, int(port)))
    if not url.startswith("https:"):
        return client
    return _unverified().wrap_socket(client)


@cache
def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextmanager
def unread(url: str, path: str, count: int) -> Iterator[list[socket.socket]]:
    """`count` connections that have asked for `path` and read nothing."""
    with ExitStack() as stack:
        yield [stack.enter_context(asking(url, path)) for _ in range(count)]
