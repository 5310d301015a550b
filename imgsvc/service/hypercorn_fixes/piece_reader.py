"""What a connection has received and not read yet."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

SMALL = 4096  # bytes received at once that are joined with others

Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def stream_protocol(connected: Connected) -> asyncio.StreamReaderProtocol:
    """What `asyncio.start_server` makes for each connection, with a PieceReader."""
    loop = asyncio.get_running_loop()
    return asyncio.StreamReaderProtocol(PieceReader(loop), connected, loop=loop)


class PieceReader(asyncio.StreamReader):
    """A stream that is read in the pieces in which it was received, of at most 256 KB (uvloop, asyncio).

    The `read` of asyncio's stream copies all bytes into a buffer and out of it. Beyond its limit, which includes the
    piece that is being handled, nothing more is received: of an upload that waits for the disk little is in memory.
    """

    # asyncio's own
    _eof: bool
    _limit: int
    _paused: bool
    _transport: Any
    _wakeup_waiter: Callable[[], None]
    _wait_for_data: Callable[[str], Awaitable[None]]

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._pieces: list[bytes | bytearray] = []  # a deque takes more memory, and these are few
        self._held = 0  # bytes of these, and of the piece that is being handled
        self._handled = 0  # bytes of that piece

    def at_eof(self) -> bool:
        return self._eof and not self._pieces

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        """Keep the bytes without a copy, unless they are so few that their objects would take more memory."""
        if len(data) >= SMALL:
            self._pieces.append(data)
        elif self._pieces and isinstance(last := self._pieces[-1], bytearray):
            last += data
        elif data:
            self._pieces.append(bytearray(data))
        self._held += len(data)
        self._wakeup_waiter()
        if self._held > self._limit and not self._paused:
            self._transport.pause_reading()
            self._paused = True

    async def piece(self) -> bytes:
        """The next bytes; none at the end. The ones before count as handled. Raises what has ended the connection."""
        self._release()
        if (error := self.exception()) is not None:
            raise error
        if not self._pieces and not self._eof:
            await self._wait_for_data("piece")
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        self._handled = len(piece)
        return bytes(piece)

    def _release(self) -> None:
        self._held -= self._handled
        self._handled = 0
        if self._held <= self._limit and self._paused:
            self._paused = False
            self._transport.resume_reading()
