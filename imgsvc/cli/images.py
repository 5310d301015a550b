"""Images for the command line, through the operator's API of the running service."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from ..settings import Settings
from .errors import CommandFailed
from .service_client import Running, running, segment

IMAGES = "/api/v1/operator/images"
MOST_ON_A_PAGE = 200
DOWNLOAD_SECONDS = 300.0


class Images:
    """The images of the running service. Every method may raise CommandFailed."""

    def __init__(self, service: Running) -> None:
        self.service = service

    @classmethod
    def of(cls, settings: Settings) -> "Images":
        service = running(settings)
        if service is None:
            raise CommandFailed(f"no service runs on the data folder {settings.data}")
        return cls(service)

    def listed(self, limit: int, **filters: str | None) -> Iterator[dict[str, Any]]:
        """At most `limit` images, the newest first, page by page."""
        given: dict[str, Any] = {name: value for name, value in filters.items() if value is not None}
        after: dict[str, str] = {}
        while limit > 0:
            query = {**given, **after, "limit": min(limit, MOST_ON_A_PAGE)}
            page = self.service.call("GET", IMAGES, params=query)
            yield from page["images"]
            limit -= len(page["images"])
            if page["next"] is None:
                return
            after = {"after": page["next"]}

    def shown(self, image_id: str) -> dict[str, Any]:
        return self.service.call("GET", f"{IMAGES}/{segment(image_id)}")

    def patch(self, image_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Returns the image as it is then."""
        content = json.dumps(changes)
        headers = {"Content-Type": "application/merge-patch+json"}
        return self.service.call("PATCH", f"{IMAGES}/{segment(image_id)}", content=content, headers=headers)

    def delete(self, image_id: str) -> int:
        """Returns the number of files."""
        return int(self.service.call("DELETE", f"{IMAGES}/{segment(image_id)}")["files_removed"])

    def bytes(self, image_id: str, size: str) -> bytes:
        """The bytes of a variant."""
        urls = self.shown(image_id)["urls"]
        if size not in urls:
            raise CommandFailed(f"{image_id} has no variant {size!r}; it has: {', '.join(urls) or 'none yet'}")
        url = urlsplit(urls[size])
        path = url.path[url.path.index("/api/v1/images/") :]
        return self.service.fetch(f"{path}?{url.query}", DOWNLOAD_SECONDS)
