"""Request bodies that the handler did not read to their end (lingering close; RFC 9112 section 9.6)."""

import time
from typing import Protocol

import anyio
import anyio.lowlevel
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from .head import Head

CLIENT = "imgsvc.client"  # in the scope's state: the connection, if there is one
DRAIN_BYTES = 1 << 20
DRAIN_SECONDS = 2.0
LINGER_SECONDS = 0.5  # for a client that reads while it sends to see the response; nothing is read in this time
OVER_SECONDS = 1.0  # for the end-of-stream message, once the response is sent
QUEUED = 3  # messages in Hypercorn's queue (max_app_queue_size), and one that waits to be queued
NO_DRAIN = "imgsvc.body_stalled"  # in the scope: the body has stalled, so reading more would only wait again


def has_body(head: Head) -> bool:
    return b"transfer-encoding" in head or head.get(b"content-length", b"0") != b"0"


def drained(scope: Scope, receive: Receive, send: Send) -> tuple[Receive, Send]:
    """The `receive` and `send` of a request with a body.

    Some more of the body is read before the response, so that a client that is still sending starts reading; then the
    connection is closed. Closing at once would lose the response: bytes that arrive at a closed socket reset the
    connection, even for a client that is already reading. A proxy would then report a bad gateway.

    What arrives while the response is sent is discarded too. Hypercorn puts the end of a request into the queue of the
    body, and if that is full and not read, the response never ends.
    """
    body = _Watched(receive, scope.get("state", {}).get(CLIENT))
    return body.receive, _Responder(scope, body, send).send


class _Responder:
    """Sends the response of one request, and deals with the rest of its body."""

    def __init__(self, scope: Scope, body: "_Watched", send: Send) -> None:
        self._scope = scope
        self._body = body
        self._send = send
        self._closing = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._before_start(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._send_last(message)
        else:
            await self._send(message)

    async def _before_start(self, message: Message) -> None:
        stalled = self._scope.get(NO_DRAIN)
        if stalled or not await self._body.drain():
            MutableHeaders(scope=message)["Connection"] = "close"
            self._closing = not stalled

    async def _send_last(self, message: Message) -> None:
        if self._closing:  # by its length the response is complete; the connection closes once its end is sent
            await self._send({**message, "more_body": True})
            await anyio.sleep(LINGER_SECONDS)
            message = {"type": "http.response.body", "body": b""}
        await self._body.swallow_during(self._send, message)


class Sender(Protocol):
    """The client, while it sends its request."""

    @property
    def is_permission_awaited(self) -> bool:
        """Whether it holds back the body until it is permitted (`Expect: 100-continue`)."""

    async def permit_body(self) -> None:
        """Let it send the body, if it holds it back."""


class _Watched:
    """Wraps a request's `receive`, and remembers whether the body has ended.

    The first look at the body permits it, so that every check that needs no body comes before.
    """

    def __init__(self, receive: Receive, sender: Sender | None) -> None:
        self._receive = receive
        self._sender = sender
        self._ended = False

    async def receive(self) -> Message:
        if self._sender is not None:
            await self._sender.permit_body()
        message = await self._receive()
        self._ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def drain(self) -> bool:
        """Read the rest within the limits; returns whether the body has ended.

        A body that was not permitted does not come: the response is sent at once (RFC 9110 section 10.1.1).
        """
        if self._sender is not None and self._sender.is_permission_awaited:
            return False
        deadline, left = time.monotonic() + DRAIN_SECONDS, DRAIN_BYTES
        while not self._ended and left > 0 and time.monotonic() < deadline:  # if always ready, it is never cancelled
            with anyio.move_on_after(deadline - time.monotonic()):
                left -= len((await self.receive()).get("body", b""))
                continue
            break
        return self._ended

    async def swallow_during(self, send: Send, last: Message) -> None:
        if self._ended:
            await send(last)
            return
        async with anyio.create_task_group() as group:
            group.start_soon(self._swallow)
            await send(last)
            group.cancel_scope.cancel()
        # The end-of-stream message is in Hypercorn's queue by now. If that is full, further messages would block the
        # whole connection.
        for _ in range(QUEUED):
            with anyio.move_on_after(OVER_SECONDS) as waited:
                await self.receive()
            if self._ended or waited.cancelled_caught:
                return

    async def _swallow(self) -> None:
        while not self._ended:
            await anyio.lowlevel.checkpoint()
            await self.receive()
