"""One connection: what it reads and writes, and how it ends."""

import asyncio
import os
import select
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from ...http.wire.drain import CLIENT
from .http1 import COPIED_BYTES, Http1
from .idle_timer import IdleTimer
from .piece_reader import PieceReader
from .tls_session import TlsServer, TlsSession
from .waiting import Requests

PIECE_BYTES = 256 * 1024  # written to the transport at a time, which keeps no copy of it
TLS_PIECE_BYTES = 64 * 1024  # encrypted at a time, once the kernel has room
LINGER_SECONDS = 2.0  # for a client that sends on after its answer; a reset would take the answer from it
BYTES_ACKED_AT = 120  # of tcpi_bytes_acked in Linux's struct tcp_info
TCP_INFO_BYTES = 256


class Connection(TCPServer):
    """One connection. It is in `waiting` while bytes of a response wait for its client."""

    def __init__(self, *arguments: Any, waiting: "set[Connection]", tls: TlsServer | None = None) -> None:
        super().__init__(*arguments)
        self._waiting = waiting
        self._left = False
        self.idle_timer = IdleTimer(self.config.keep_alive_timeout, self.context.terminated.is_set)
        self.idle_task = cast(Any, self.idle_timer)
        self._lingering: asyncio.TimerHandle | None = None
        self._room: asyncio.Future[None] | None = None
        self._raw: socket.socket = self.writer.get_extra_info("socket")
        self._tls = TlsSession(tls) if tls else None
        self.writer.transport.set_write_buffer_limits(high=0)  # a handler goes on once the kernel has all

    async def run(self) -> None:
        try:
            tls = self._tls is not None
            client = parse_socket_addr(self._raw.family, self._raw.getpeername())
            server = parse_socket_addr(self._raw.family, self._raw.getsockname())
            async with Requests(self.loop) as group:
                self._task_group = group
                state = ConnectionState({CLIENT: self})
                protocol = Http1(
                    self.app, self.config, self.context, group, state, tls, client, server, self.protocol_send
                )
                self.protocol = cast(Any, protocol)  # instead of Hypercorn's wrapper, which changes to HTTP/2
                await self.idle_task.restart(cast(Any, group), self._idle_timeout)
                await self._read_data()
                self._left = True
                await self.idle_task.stop()
        except OSError:
            pass
        finally:
            await self._close()
            self._break_cycles()

    def _break_cycles(self) -> None:
        """Let the memory be freed now."""
        self.protocol = cast(Any, None)
        if (error := self.reader.exception()) is not None:
            error.__traceback__ = None  # of frames that refer to this connection

    async def _idle_timeout(self) -> None:
        self._end_tls()
        await asyncio.shield(self._initiate_server_close())

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated) and self._left:
            return  # a wait for the next request would keep the socket
        if isinstance(event, Closed) and self._http1.is_still_received and not (self._left or self.gone):
            self._linger()
            return
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                for piece in _pieces(event.data, TLS_PIECE_BYTES if self._tls else PIECE_BYTES):
                    await self._write(piece)
            except (ConnectionError, RuntimeError, ssl.SSLError):
                await self.protocol.handle(Closed())

    async def _write(self, piece: bytes | memoryview) -> None:
        """Write, and wait until the kernel has taken it: of an unread answer little is held here."""
        if self._tls is None:
            self.writer.write(piece)
        else:
            if len(piece) > COPIED_BYTES:
                await self.takes_more()  # before there is an encrypted copy
            self.writer.write(self._tls.encrypted(piece))
        if self.writer.transport.get_write_buffer_size() or self.gone:
            with self._waited_for():
                await self.writer.drain()

    def _end_tls(self) -> None:
        if self._tls is not None and not self.gone:
            with suppress(OSError, RuntimeError):
                self.writer.write(self._tls.end())

    def _linger(self) -> None:
        """End our side, and drop what still comes, for LINGER_SECONDS at most (RFC 9112 section 9.6)."""
        if self._lingering is None:
            self._end_tls()
            with suppress(OSError, RuntimeError):
                self.writer.write_eof()
            self._lingering = self.loop.call_later(LINGER_SECONDS, self.writer.transport.close)

    async def _read_data(self) -> None:
        while not (self.reader.at_eof() or (self._tls is not None and self._tls.ended)):
            try:
                data = await cast(PieceReader, self.reader).piece()
                if self._lingering is not None:
                    continue
                if self._tls is not None and data:
                    data = await self._decrypted(self._tls, data)
                    if not data:
                        continue
            except OSError:  # such as ssl.SSLError
                break
            await self.protocol.handle(RawData(data))
            data = b""  # not kept while the next is waited for
        await self.protocol.handle(Closed())

    async def _decrypted(self, tls: TlsSession, data: bytes) -> bytes:
        try:
            return tls.decrypted(data)
        finally:
            if (reply := tls.to_send()) and not self.gone:
                self.writer.write(reply)
                with self._waited_for():  # else one that asks for new keys again and again would fill the memory
                    await self.writer.drain()

    async def _close(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        self._end_tls()
        with self._waited_for():
            await super()._close()

    @contextmanager
    def _waited_for(self) -> Iterator[None]:
        self._waiting.add(self)
        try:
            yield
        finally:
            self._waiting.discard(self)

    @property
    def _http1(self) -> Http1:
        return cast(Http1, self.protocol)

    @property
    def is_permission_awaited(self) -> bool:
        """Whether the client holds back the body until it is permitted (`Expect: 100-continue`)."""
        return self._http1.is_permission_awaited

    async def permit_body(self) -> None:
        """Let the client send its body."""
        await self._http1.permit_body()

    @property
    def gone(self) -> bool:
        """Whether the connection is closed."""
        return bool(self.writer.transport.is_closing())

    async def takes_more(self) -> None:
        """Wait until the kernel has room for more or the client is gone, so that nothing is held in memory."""
        if self.gone or _is_writable(self._raw.fileno()):
            return
        try:
            descriptor = os.dup(self._raw.fileno())  # the event loop does not allow watching the transport's own
        except OSError:
            return
        room = self._room = self.loop.create_future()
        self.loop.add_writer(descriptor, self._wake)
        try:
            with self._waited_for():
                await room
        finally:
            self.loop.remove_writer(descriptor)
            os.close(descriptor)

    def taken_bytes(self) -> int:
        """The bytes that the client's system has confirmed; more may wait in user space and the kernel."""
        with suppress(OSError, ValueError, struct.error, AttributeError):  # ValueError: it was closed meanwhile
            found = self._raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
            return int(struct.unpack_from("=Q", found, BYTES_ACKED_AT)[0])
        return -self.writer.transport.get_write_buffer_size()  # not Linux: progress as far as it is visible

    def abort(self) -> None:
        """Drop the connection and the bytes that wait for its client."""
        self.writer.transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


def _is_writable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def _pieces(data: bytes | memoryview, size: int) -> Iterator[bytes | memoryview]:
    """Split a body: in the transport TLS would copy a whole one, and its progress would not be visible."""
    if len(data) <= size:
        yield data
        return
    view = memoryview(data)
    for start in range(0, len(data), size):
        yield view[start : start + size]
