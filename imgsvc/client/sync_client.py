"""The client for programs without an event loop."""

import time
from collections.abc import Iterator, Mapping
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


class Client:
    """Calls the service at `url`, whose paths may have a prefix. Every method may raise Refused or ConnectionFailed.

    `http`: an httpx client of your own, which is then not closed.
    """

    def __init__(
        self, url: str, token: str | None = None, *, retries: Retries | None = None, http: httpx.Client | None = None
    ) -> None:
        self._service = Service.of(url, token)
        self._retries = retries or Retries()
        self._own = http is None
        self._http = http or httpx.Client(timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._own:
            self._http.close()

    def upload(
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
        return self._run(flows.upload(form, key, self._retries))

    def absolute(self, url: str) -> str:
        """A URL that the service has named; without a public URL it names paths."""
        return self._service.absolute(url)

    def fetch(self, url: str, *, bucket: str, metadata: Mapping[str, Any] | None = None) -> Receipt:
        """Let the service fetch the image from an address, if it allows the host."""
        return self._run(flows.fetch(url, bucket, metadata or {}, self._retries))

    def ticket(self, *, bucket: str, **limits: Any) -> Json:
        """An upload ticket to be handed out: its `upload_url` needs no other credential.

        `limits`: uploads, max_bytes, allowed_types, expires_in, metadata, expires_after.
        """
        return self._run(flows.ticket({"bucket": bucket, **limits}, self._retries))

    def usage(self) -> Json:
        """What the user has stored, the uploads that are left, and the limits."""
        return self._run(flows.usage(self._retries))

    def job(self, job_id: str) -> Job:
        """The status now."""
        return self._run(flows.job(job_id, self._retries))

    def wait(self, job_id: str, seconds: float = 300) -> Job:
        """The completed job. Raises JobFailed, or StillProcessing after so many seconds."""
        return self._run(flows.waited(job_id, seconds, self._retries))

    def events(self, *job_ids: str) -> Iterator[Event]:
        """News of up to 100 jobs as they come, until each has ended, by server-sent events.

        A stream that breaks off is requested again, and goes on after the last event that was received; an event may
        come twice then. Raises ConnectionFailed after as many requests without an event as there may be attempts.
        """
        follower = Follower(job_ids, self._retries)
        while not follower.has_ended:
            request, answer = self._service.request(follower.call()), BROKEN_OFF
            try:
                with self._http.stream(**request, timeout=TIMEOUT_SECONDS) as found:
                    if found.is_error:
                        found.read()
                        answer = answer_of(found)
                    for line in found.iter_lines():  # none of an error is an event
                        if event := follower.line(line):
                            yield event
            except httpx.HTTPError as error:
                answer = unanswered(error)
            if not follower.has_ended:
                time.sleep(follower.pause(answer))

    def image(self, image_id: str) -> Image:
        return self._run(flows.image(image_id, self._retries))

    def update(self, image_id: str, **changes: Any) -> Json:
        """Change `client_metadata` (merged), `expires_at` or `focal`; None removes. Returns the image as it is then."""
        return self._run(flows.update(image_id, changes, self._retries))

    def content(self, image_id: str, size: str = "original") -> bytes:
        """The bytes of a variant."""
        return self._run(flows.content(image_id, size, self._retries))

    def delete(self, image_id: str) -> int:
        """The number of files that were removed."""
        return self._run(flows.delete(image_id, self._retries))

    def images(self, **filters: str | int) -> Iterator[ListedImage]:
        """All images of a list, page by page: bucket, status, q, sha256, created_after, created_before, limit."""
        given = {name: str(value) for name, value in filters.items()}
        while True:
            listed, following = self._run(flows.page(given, self._retries))
            yield from listed
            if following is None:
                return
            given["after"] = following

    def _run(self, flow: Flow[T]) -> T:
        try:
            wanted = next(flow)
            while True:
                if isinstance(wanted, Pause):
                    time.sleep(wanted.seconds)
                    wanted = flow.send(Answer(None, {}, b""))
                else:
                    wanted = flow.send(self._answer(wanted))
        except StopIteration as end:
            result: T = end.value
            return result

    def _answer(self, call: Call) -> Answer:
        content = None if call.body is None else call.body()
        try:
            return answer_of(self._http.request(**self._service.request(call), content=content))
        except httpx.HTTPError as error:
            return unanswered(error)
        except (OSError, ValueError) as error:
            raise ImgsvcError(f"the source can't be read: {error}") from error
