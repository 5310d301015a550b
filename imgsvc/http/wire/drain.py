"""Bodies that the handler did not read to their end, because it refused the request or had no use for one."""

import time

import anyio
import anyio.lowlevel
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAIN_BYTES = 1 << 20
DRAIN_SECONDS = 2.0
LINGER_SECONDS = 0.5  # for who reads while sending to see the answer: nothing is read meanwhile
OVER_SECONDS = 1.0  # for the server to say so, once the answer is out
QUEUED = 3  # messages that may stand in Hypercorn's queue (max_app_queue_size), and one that waits to
NO_DRAIN = "imgsvc.body_stalled"  # in the scope: reading on would only wait again


class DrainUnreadBody:
    """Reads on a little before the answer, so that a client that only sends can get to reading; then closes.

    Not at once: with bytes on their way to a closed socket the answer would be lost, even to who is just reading it. A
    proxy would tell its client of a bad gateway then.

    And it takes what still comes while the answer goes out: Hypercorn hands over the end of a request in the queue
    that the body waits in, and with nobody reading that, the answer's own end would wait for ever.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        body, closing = _Watched(receive), False

        async def send_after_body(message: Message) -> None:
            nonlocal closing
            if message["type"] == "http.response.start":
                unread = scope.get(NO_DRAIN) or not await body.drain()
                if unread:
                    MutableHeaders(scope=message)["Connection"] = "close"
                    closing = not scope.get(NO_DRAIN)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                if closing:  # by its length the answer is whole; we close when its end is sent
                    await send({**message, "more_body": True})
                    await anyio.sleep(LINGER_SECONDS)
                    message = {"type": "http.response.body", "body": b""}
                await body.swallow_during(send, message)
            else:
                await send(message)

        await self.app(scope, body.receive, send_after_body)


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"


class _Watched:
    """A request's `receive`, remembering whether the body has ended."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def drain(self) -> bool:
        """True when the body has ended."""
        deadline, left = time.monotonic() + DRAIN_SECONDS, DRAIN_BYTES
        while not self._ended and left > 0 and time.monotonic() < deadline:  # what is always ready is never cancelled
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
        # The word that it is over stands in the queue now; with that full, what comes next would keep all of the
        # connection waiting.
        for _ in range(QUEUED):
            with anyio.move_on_after(OVER_SECONDS) as waited:
                await self.receive()
            if self._ended or waited.cancelled_caught:
                return

    async def _swallow(self) -> None:
        while not self._ended:
            await anyio.lowlevel.checkpoint()
            await self.receive()
