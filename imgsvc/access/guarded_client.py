"""The guarded client: the only code that calls an address which a client or a webhook gave.

The name is resolved once; every address of the answer must be public and none of this machine; the connection goes to
an address that was checked, with Host, SNI and certificate by name, and the peer's address is compared afterwards. So a
name that changes its address in between (DNS rebinding) gains nothing. One HTTP/1.1 request a connection: no redirect,
cookie, proxy, pool or environment is involved (RFC 9112 by h11).
"""

import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import field
from typing import Literal, Self
from urllib.parse import quote, urlsplit

import anyio
import anyio.to_thread
import h11
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream

from .. import __version__
from ..lazy_dataclass import dataclass
from .inner_addresses import Address, is_public, parsed, unwrapped

RESOLVE_SECONDS = 5.0
CONNECT_SECONDS = 5.0
HEAD_BYTES = 16 * 1024  # of the answer's head, interim answers included
PIECE_BYTES = 64 * 1024
MAX_URL_BYTES = 2048
MAX_ADDRESSES = 4  # of a name that are tried
RESOLVING = 8  # names that are resolved at the same time: a thread each, which can't be cancelled
PORTS = {"https": 443, "http": 80}
KEPT = "%/:@!$&'()*+,;=?~-._"  # characters of a path or query that are sent as they are (RFC 3986)
HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")

Reason = Literal["url", "name", "address", "connect", "tls", "timeout", "answer", "too_large"]
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class NotCalled(Exception):
    """There is no usable answer: `reason` for tables and metrics, the message for the log."""

    def __init__(self, reason: Reason, words: str) -> None:
        super().__init__(words)
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in the parts that are used: nothing is parsed twice."""

    secure: bool
    host: str  # without brackets, in ASCII
    port: int
    authority: str  # the Host header
    path: str

    @classmethod
    def of(cls, url: str, *, allow_http: bool = False) -> Self:
        """Parse an absolute URL. Raises NotCalled."""
        if len(url.encode(errors="replace")) > MAX_URL_BYTES:
            raise NotCalled("url", f"the URL has more than {MAX_URL_BYTES} bytes")
        if re.search(r"[\x00-\x20\x7f\\]", url):
            raise NotCalled("url", "the URL contains a space, a control character or a backslash")
        try:
            parts = urlsplit(url)
            port, name = parts.port, parts.hostname or ""
            host = name.encode("idna").decode() if name and not name.isascii() else name
        except (ValueError, UnicodeError):
            raise NotCalled("url", "the URL is malformed") from None
        if parts.scheme not in PORTS or (parts.scheme == "http" and not allow_http):
            raise NotCalled("url", f"the URL must begin with https://{' or http://' if allow_http else ''}")
        if parts.username is not None or parts.password is not None:
            raise NotCalled("url", "the URL contains a user name or password")
        if not HOST.fullmatch(host) or port == 0:
            raise NotCalled("url", "the URL names no usable host and port")
        shown = f"[{host}]" if ":" in host else host
        path = quote(parts.path or "/", safe=KEPT)
        query = f"?{quote(parts.query, safe=KEPT)}" if parts.query else ""
        return cls(
            parts.scheme == "https",
            host,
            port or PORTS[parts.scheme],
            shown if port is None else f"{shown}:{port}",
            path + query,
        )


@dataclass(slots=True)
class Answer:
    """Status and headers (names in lower case); the body is read from `chunks`, once."""

    status: int
    headers: Mapping[str, str]
    _stream: ByteStream
    _connection: h11.Connection = field(repr=False)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as sent. Raises NotCalled if it ends early or is malformed."""
        while True:
            event = await _next_event(self._connection, self._stream, PIECE_BYTES)
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise NotCalled("answer", "the body of the answer ends early")

    async def drop(self, limit: int) -> None:
        """Read the body and drop it. Raises NotCalled beyond `limit` bytes."""
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > limit:
                raise NotCalled("too_large", f"the body of the answer has more than {limit} bytes")


class SystemResolver:
    """The addresses of a name, by the system's resolver, in its order of preference. Raises OSError."""

    def __init__(self) -> None:
        self._threads = anyio.CapacityLimiter(RESOLVING)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        found = await anyio.to_thread.run_sync(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
            abandon_on_cancel=True,
            limiter=self._threads,
        )
        return [str(entry[4][0]) for entry in found]


class GuardedClient:
    """Calls addresses of others. `allow_private`: http, and addresses that are not public, are accepted too."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        resolve: Resolve | None = None,
        make_context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._resolve = resolve or SystemResolver()
        self._make_context = make_context or _default_context
        self._context: ssl.SSLContext | None = None

    @asynccontextmanager
    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"", seconds: float
    ) -> AsyncIterator[Answer]:
        """Send a request; its answer is open in the context, and `seconds` limits all of that. Raises NotCalled."""
        target = Target.of(url, allow_http=self._allow_private)
        try:
            with anyio.fail_after(seconds):
                stream = await self._connected(target, await self._checked(target))
                try:
                    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
                    await stream.send(_request(connection, method, target, headers, body))
                    yield await _answer(connection, stream)
                except (anyio.BrokenResourceError, anyio.EndOfStream, ssl.SSLError):
                    raise NotCalled("answer", "the connection was lost") from None
                except h11.ProtocolError as error:
                    raise NotCalled("answer", f"the answer is malformed: {error}") from None
                finally:
                    await anyio.aclose_forcefully(stream)
        except TimeoutError:
            raise NotCalled("timeout", f"no whole answer within {seconds:g} seconds") from None

    async def _checked(self, target: Target) -> Sequence[Address]:
        """Resolve the name once and check every address of the answer. Raises NotCalled."""
        try:
            with anyio.fail_after(RESOLVE_SECONDS):
                found = await self._resolve(target.host, target.port)
                addresses = list(dict.fromkeys(parsed(text) for text in found))
        except TimeoutError:
            raise NotCalled("name", f"the name was not resolved within {RESOLVE_SECONDS:g} seconds") from None
        except (OSError, ValueError, UnicodeError):
            raise NotCalled("name", "the name can't be resolved") from None
        if not addresses:
            raise NotCalled("name", "the name has no address")
        if self._allow_private:
            return addresses
        own = await anyio.to_thread.run_sync(own_addresses)
        for address in addresses:
            if not is_public(address) or not own.isdisjoint((address, *unwrapped(address))):
                raise NotCalled("address", "the name leads to an address that is not public, or to this machine")
        return addresses

    async def _connected(self, target: Target, addresses: Sequence[Address]) -> ByteStream:
        """Connect to the first address that accepts. Raises NotCalled."""
        tried = addresses[:MAX_ADDRESSES]
        for address in tried:
            try:
                with anyio.fail_after(CONNECT_SECONDS / len(tried)):
                    return await self._opened(target, address)
            except ssl.SSLError as error:
                raise NotCalled("tls", f"no TLS connection: {error.reason or error}") from None
            except (OSError, anyio.BrokenResourceError, anyio.EndOfStream):  # TimeoutError is an OSError
                continue
        raise NotCalled("connect", f"no connection to any of {len(tried)} addresses")

    async def _opened(self, target: Target, address: Address) -> ByteStream:
        """Raises OSError, ssl.SSLError or NotCalled."""
        if self._context is None and target.secure:
            self._context = await anyio.to_thread.run_sync(self._make_context)
        stream = await anyio.connect_tcp(str(address), target.port)  # a literal address: nothing is resolved again
        try:
            peer = parsed(str(stream.extra(SocketAttribute.remote_address)[0]))  # noqa: S610, not Django
            if peer != address:
                raise NotCalled("address", "the peer has another address than the one that was checked")
            if not target.secure:
                return stream
            return await TLSStream.wrap(
                stream, hostname=target.host, ssl_context=self._context, standard_compatible=False
            )
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise


def own_addresses() -> set[Address]:
    """The addresses of this machine's interfaces, at this moment. It reads from the kernel: call it in a thread."""
    import psutil  # imported here, since most services call no foreign address

    entries = (entry for entries in psutil.net_if_addrs().values() for entry in entries)
    return {parsed(one.address) for one in entries if one.family in (socket.AF_INET, socket.AF_INET6)}


def _default_context() -> ssl.SSLContext:
    """SSL_CERT_FILE and SSL_CERT_DIR are honoured, for a private certificate authority."""
    import httpx

    return httpx.create_ssl_context()


async def _answer(connection: h11.Connection, stream: ByteStream) -> Answer:
    """Read the head of the final answer."""
    left = HEAD_BYTES
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if left <= 0:
                raise NotCalled("too_large", f"the head of the answer has more than {HEAD_BYTES} bytes")
            received = await _received(stream, min(left, PIECE_BYTES))
            left -= len(received)
            connection.receive_data(received)
        elif isinstance(event, h11.Response):
            headers: dict[str, str] = {}
            for name, value in event.headers:
                text = value.decode("latin-1")
                key = name.decode("ascii")
                headers[key] = f"{headers[key]}, {text}" if key in headers else text
            return Answer(event.status_code, headers, stream, connection)
        elif not isinstance(event, h11.InformationalResponse):
            raise NotCalled("answer", "the connection ended before an answer")


async def _next_event(connection: h11.Connection, stream: ByteStream, most: int) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await _received(stream, most))
    return event


async def _received(stream: ByteStream, most: int) -> bytes:
    """Some bytes; none at the end of the connection."""
    try:
        return await stream.receive(most)
    except anyio.EndOfStream:
        return b""


def _request(connection: h11.Connection, method: str, target: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    sent = {
        "Host": target.authority,
        "User-Agent": f"imgsvc/{__version__}",
        "Accept-Encoding": "identity",  # nothing that grows when unpacked
        "Connection": "close",
        **headers,
    }
    if body or method == "POST":
        sent["Content-Length"] = str(len(body))
    parts = [connection.send(h11.Request(method=method, target=target.path, headers=list(sent.items())))]
    if body:
        parts.append(connection.send(h11.Data(data=body)))
    parts.append(connection.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)
