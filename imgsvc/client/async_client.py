"""The client for programs with an event loop."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from . import flows
from .errors import ImgsvcError
from .events import BROKEN_OFF, Follower
from .exchange import TIMEOUT_SECONDS, Service, answer_of, unanswered
from .flows import Answer, Call, Flow, Pause
from .models import Event, Image, Job, Json, ListedImage, Receipt
from .retries import Retries
from .sources import Form, Progress, Source, fields_of

T = TypeVar("T")


class AsyncClient:
    """Calls the service at `url`, whose paths may have a prefix. Every method may raise Refused or ConnectionFailed.

    `http`: an httpx client of your own, which is then not closed.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        retries: Retries | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._service = Service.of(url, token)
        self._retries = retries or Retries()
        self._own = http is None
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if self._own:
            await self._http.aclose()

    async def upload(
        self,
        source: Source,
        *,
        bucket: str,
        metadata: Mapping[str, Any] | None = None,
        expires_in: int | None = None,
        name: str | None = None,
        key: str | None = None,
        progress: Progress | None = None,
    ) -> Receipt:
        """Upload from a path (str or PathLike), bytes, a binary file or an iterable of bytes.

        `expires_in`: seconds until the image expires; None: never. `name`: that of the file, unless the source has one.
        `progress` is called with (bytes sent, bytes in all or None). `key` is the Idempotency-Key; without one each
        call has its own, so that it can be repeated. An iterable can be read once, so it is attempted once.
        """
        form = Form(source, fields_of(bucket, metadata, expires_in), name, progress)
        return await self._run(flows.upload(form, key, self._retries))

    def absolute(self, url: str) -> str:
        """A URL that the service has named; without a public URL it names paths."""
        return self._service.absolute(url)

    async def fetch(self, url: str, *, bucket: str, metadata: Mapping[str, Any] | None = None) -> Receipt:
        """Let the service fetch the image from an address, if it allows the host."""
        return await self._run(flows.fetch(url, bucket, metadata or {}, self._retries))

    async def ticket(self, *, bucket: str, **limits: Any) -> Json:
        """An upload ticket to be handed out: its `upload_url` needs no other credential.

        `limits`: uploads, max_bytes, allowed_types, expires_in, metadata, expires_after.
        """
        return await self._run(flows.ticket({"bucket": bucket, **limits}, self._retries))

    async def usage(self) -> Json:
        """What the user has stored, the uploads that are left, and the limits."""
        return await self._run(flows.usage(self._retries))

    async def job(self, job_id: str) -> Job:
        """The status now."""
        return await self._run(flows.job(job_id, self._retries))

    async def wait(self, job_id: str, seconds: float = 300) -> Job:
        """The completed job. Raises JobFailed, or StillProcessing after so many seconds."""
        return await self._run(flows.waited(job_id, seconds, self._retries))

    async def events(self, *job_ids: str) -> AsyncIterator[Event]:
        """News of up to 100 jobs as they come, until each has ended, by server-sent events.

        A stream that breaks off is requested again, and goes on after the last event that was received; an event may
        come twice then. Raises ConnectionFailed after as many requests without an event as there may be attempts.
        """
        follower = Follower(job_ids, self._retries)
        while not follower.has_ended:
            request, answer = self._service.request(follower.call()), BROKEN_OFF
            try:
                async with self._http.stream(**request, timeout=TIMEOUT_SECONDS) as found:
                    if found.is_error:
                        await found.aread()
                        answer = answer_of(found)
                    async for line in found.aiter_lines():  # none of an error is an event
                        if event := follower.line(line):
                            yield event
            except httpx.HTTPError as error:
                answer = unanswered(error)
            if not follower.has_ended:
                await asyncio.sleep(follower.pause(answer))

    async def image(self, image_id: str) -> Image:
        return await self._run(flows.image(image_id, self._retries))

    async def update(self, image_id: str, **changes: Any) -> Json:
        """Change `client_metadata` (merged), `expires_at` or `focal`; None removes. Returns the image as it is then."""
        return await self._run(flows.update(image_id, changes, self._retries))

    async def content(self, image_id: str, size: str = "original") -> bytes:
        """The bytes of a variant."""
        return await self._run(flows.content(image_id, size, self._retries))

    async def delete(self, image_id: str) -> int:
        """The number of files that were removed."""
        return await self._run(flows.delete(image_id, self._retries))

    async def images(self, **filters: str | int) -> AsyncIterator[ListedImage]:
        """All images of a list, page by page: bucket, status, q, sha256, created_after, created_before, limit."""
        given = {name: str(value) for name, value in filters.items()}
        while True:
            listed, following = await self._run(flows.page(given, self._retries))
            for one in listed:
                yield one
            if following is None:
                return
            given["after"] = following

    async def _run(self, flow: Flow[T]) -> T:
        try:
            wanted = next(flow)
            while True:
                if isinstance(wanted, Pause):
                    await asyncio.sleep(wanted.seconds)
                    wanted = flow.send(Answer(None, {}, b""))
                else:
                    wanted = flow.send(await self._answer(wanted))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _answer(self, call: Call) -> Answer:
        content = None if call.body is None else _in_turn(call.body())
        try:
            return answer_of(await self._http.request(**self._service.request(call), content=content))
        except httpx.HTTPError as error:
            return unanswered(error)
        except (OSError, ValueError) as error:
            raise ImgsvcError(f"the source can't be read: {error}") from error


async def _in_turn(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces, read in a thread: a source may be a slow disk."""
    while (piece := await asyncio.to_thread(next, pieces, b"")) != b"":
        yield piece
