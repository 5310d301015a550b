"""HTTP/1.1 of one connection."""

import re
from typing import Any, cast

import h11
from h11._readers import ContentLengthReader
from hypercorn.events import Event, RawData
from hypercorn.protocol.events import Body
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol

PARSED_BYTES = 64 * 1024  # that h11 is given at once: it copies them
COPIED_BYTES = 16 * 1024  # of a body that is joined with its head, so that both are sent in one write

HEAD_END = re.compile(rb"\n\r?\n")
BARE_LF = re.compile(rb"(?<!\r)\n")
VERSION = re.compile(rb"[^\r\n]* HTTP/1\.[01]\r\n")
LENGTH = re.compile(rb"\ncontent-length[ \t]*:", re.IGNORECASE)
ENCODING = re.compile(rb"\ntransfer-encoding[ \t]*:", re.IGNORECASE)


class StrictHead(h11.Connection):
    """An h11 server connection that refuses heads which a proxy before it may read differently, and large ones."""

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=max_head_bytes)
        self._max_head_bytes = max_head_bytes

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        """Always false, since Hypercorn would answer at once; `Http1.permit_body` answers."""
        return False

    def next_event(self) -> Any:
        """Like h11's, but for one empty line before a request, which is ignored (RFC 9112, 2.2): some clients send one
        behind a body. Raises RemoteProtocolError.
        """
        if self.their_state is h11.IDLE:
            if self.trailing_data[0].startswith(b"\r\n"):
                self._receive_buffer.maybe_extract_at_most(2)
            _check_head(self.trailing_data[0], self._max_head_bytes)
        return super().next_event()

    def pass_by(self, size: int) -> bool:
        """Whether the next `size` bytes are of a body and are not its last, by its Content-Length; if so they count as
        received. h11 would copy them three times, and take longer for all pieces of a photo than it takes to hash it.
        """
        reader = self._reader
        if (
            not isinstance(reader, ContentLengthReader)
            or self._receive_buffer
            or self.client_is_waiting_for_100_continue
        ):
            return False
        if not 0 < size < reader._remaining:
            return False
        reader._remaining -= size
        return True


def _check_head(received: bytes, max_bytes: int) -> None:
    if received.startswith(b"PRI * HTTP/2"):
        raise h11.RemoteProtocolError("HTTP/2 is not spoken here", error_status_hint=400)
    end = HEAD_END.search(received)
    if end is None:
        return  # h11 limits the size of an incomplete head
    head = received[: end.end()]
    if len(head) > max_bytes:
        raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
    if BARE_LF.search(head) or not VERSION.match(head) or (LENGTH.search(head) and ENCODING.search(head)):
        raise h11.RemoteProtocolError("the head is malformed", error_status_hint=400)


class Http1(H11Protocol):
    """Hypercorn's HTTP/1.1 without upgrades: a request that asks for one is answered as if it had not."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connection = StrictHead(self.config.h11_max_incomplete_size)
        self._head = b""

    async def handle(self, event: Event) -> None:
        if not isinstance(event, RawData) or not event.data:
            await super().handle(event)
            return
        left = memoryview(event.data)
        while left:
            size, stream = len(left), self.stream
            if stream and cast(StrictHead, self.connection).pass_by(size):
                whole = size == len(event.data)
                await stream.handle(Body(stream_id=STREAM_ID, data=event.data if whole else bytes(left)))
            else:
                size = min(size, PARSED_BYTES)
                await super().handle(RawData(data=bytes(left[:size])))
            left = left[size:]

    @property
    def is_permission_awaited(self) -> bool:
        """Whether the client holds back the body until it is permitted (`Expect: 100-continue`)."""
        return bool(cast(StrictHead, self.connection).client_is_waiting_for_100_continue)

    async def permit_body(self) -> None:
        """Send the 100, if it is awaited."""
        if self.is_permission_awaited:
            headers = self.config.response_headers("h11")
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=headers, reason=b"Continue"))

    @property
    def is_still_received(self) -> bool:
        """Whether more of a request may come that has been answered: its body, or the rest of a malformed head."""
        return self.connection.their_state in (h11.SEND_BODY, h11.ERROR)

    async def _send_h11_event(self, event: Any) -> None:
        """Keep the head until the first bytes of the body: nothing is left in the transport for a second write."""
        try:
            data = self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._head = data
            return
        head, self._head = self._head, b""
        if head and len(data) > COPIED_BYTES:
            await self.send(RawData(data=head))
            head = b""
        if head or data:
            await self.send(RawData(data=head + data))

    async def _check_protocol(self, event: h11.Request) -> None:
        """Neither `Upgrade: h2c` (a tunnel past a proxy that checks paths) nor HTTP/2 from the first byte."""

    async def _create_stream(self, request: h11.Request) -> None:
        kept = [(name, value) for name, value in request.headers if name.lower() != b"upgrade"]
        if len(kept) < len(request.headers):
            request = h11.Request(
                method=request.method, headers=kept, target=request.target, http_version=request.http_version
            )
        await super()._create_stream(request)
