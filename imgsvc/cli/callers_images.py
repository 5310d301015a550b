"""The caller's own images for the command line, through any service's API, with the client alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from .errors import CommandFailed
from .imports import without

with without("click", "pygments", "rich"):  # needed only for httpx's own command line
    from ..client import Client, Event, ImgsvcError, Refused, Retries

T = TypeVar("T")
MOST_ON_A_PAGE = 200
RETRIES = Retries(attempts=3)
PATIENT = Retries(attempts=10, longest_pause=15)  # a service that is started again may take a minute


class CallersImages:
    """The images that a token or an API key may see. Every method may raise CommandFailed."""

    def __init__(self, server: str, token: str | None, retries: Retries = RETRIES) -> None:
        self._client = Client(server, token, retries=retries)

    def listed(self, limit: int, **filters: str | None) -> Iterator[dict[str, Any]]:
        """At most `limit` images, the newest first, page by page."""
        given = {name: value for name, value in filters.items() if value is not None}
        found = self._client.images(**given, limit=min(limit, MOST_ON_A_PAGE))
        yield from _tried(lambda: [dict(one.raw) for one in islice(found, limit)])

    def shown(self, image_id: str) -> dict[str, Any]:
        found = dict(_tried(lambda: self._client.image(image_id)).raw)
        found.pop("markup", None)  # for pages
        return found

    def patch(self, image_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Returns the image as it is then."""
        return dict(_tried(lambda: self._client.update(image_id, **changes)))

    def delete(self, image_id: str) -> int:
        """Returns the number of files."""
        return _tried(lambda: self._client.delete(image_id))

    def ticket(self, bucket: str, **limits: Any) -> dict[str, Any]:
        given = {name: value for name, value in limits.items() if value is not None}
        issued = dict(_tried(lambda: self._client.ticket(bucket=bucket, **given)))
        return {**issued, "upload_url": self._client.absolute(issued["upload_url"])}

    def fetch(self, url: str, bucket: str, seconds: float) -> dict[str, Any]:
        """The image, once its job has ended."""
        receipt = _tried(lambda: self._client.fetch(url, bucket=bucket))
        _tried(lambda: self._client.wait(receipt.job_id, seconds))
        return self.shown(receipt.image_id)

    def events(self, job_ids: list[str]) -> Iterator[Event]:
        """News of jobs as they come, until each has ended."""
        with _failures():
            for event in self._client.events(*job_ids):
                url = event.data.get("url")
                yield replace(event, data={**event.data, "url": self._client.absolute(url)}) if url else event

    def usage(self) -> dict[str, Any]:
        return dict(_tried(self._client.usage))

    def bytes(self, image_id: str, size: str) -> bytes:
        """The bytes of a variant."""
        return _tried(lambda: self._client.content(image_id, size))


def _tried(call: Callable[[], T]) -> T:
    with _failures():
        return call()


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise CommandFailed(f"{error.detail}: {error.reason}" if error.reason else error.detail) from None
    except ImgsvcError as error:
        raise CommandFailed(str(error)) from None
