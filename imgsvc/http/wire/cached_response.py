"""Responses from memory, with an entity tag, so that a reload is cheap."""

import hashlib
from collections.abc import Mapping
from dataclasses import field

from starlette.requests import Request
from starlette.responses import Response

from ...lazy_dataclass import dataclass
from .answer_memory import COUNTED
from .conditional import names_etag


@dataclass(frozen=True)
class CachedBody:
    body: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha256(self.body).hexdigest()[:32])

    def answer(self, request: Request, cache: str = "no-cache") -> Response:
        """200, or 304 if the client already has these bytes (RFC 9110 section 13.1.2)."""
        request.scope[COUNTED] = True  # all responses share one copy
        headers = {"ETag": f'"{self.digest}"', "Cache-Control": cache, **self.headers}
        if names_etag(request.headers.get("If-None-Match", ""), headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers=headers, media_type=self.media_type)
