"""What the service answers. Members that a later version adds are in `raw`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The upload is on the service's disk. `replayed`: by an earlier call with the same Idempotency-Key."""

    job_id: str
    image_id: str
    status_url: str
    replayed: bool
    raw: Json

    @classmethod
    def of(cls, body: Json, *, replayed: bool) -> Self:
        return cls(body["job_id"], body["image_id"], body["status_url"], replayed, body)


@dataclass(frozen=True, slots=True)
class Job:
    """`status`: pending, processing, retrying, completed or failed. `urls`: {variant: URL} of what can be fetched."""

    job_id: str
    image_id: str
    status: str
    created_at: str
    completed_at: str | None
    error: str | None
    error_code: str | None
    retryable: bool | None
    ready: tuple[str, ...]
    urls: Mapping[str, str]
    raw: Json

    @classmethod
    def of(cls, body: Json) -> Self:
        return cls(
            body["job_id"],
            body["image_id"],
            body["status"],
            body["created_at"],
            body["completed_at"],
            body["error"],
            body["error_code"],
            body["retryable"],
            tuple(body["ready"]),
            dict(body.get("urls", {})),
            body,
        )

    @property
    def has_ended(self) -> bool:
        return self.status in ("completed", "failed")


@dataclass(frozen=True, slots=True)
class Event:
    """News of a job. `kind`: `status` and `end` have the job's status in `data`, `ready` has `variant`, `url`,
    `thumbhash` and `dominant_color`. The `status` of an `end` may also be deleted or not_found.
    """

    kind: str
    job_id: str
    data: Json


@dataclass(frozen=True, slots=True)
class Image:
    """All variants of an image, {variant: URL}, and its metadata."""

    image_id: str
    urls: Mapping[str, str]
    metadata: Json
    raw: Json

    @classmethod
    def of(cls, body: Json) -> Self:
        return cls(body["image_id"], dict(body["urls"]), dict(body["metadata"]), body)


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An entry of a list."""

    image_id: str
    job_id: str
    status: str
    bucket: str
    created_at: str
    urls: Mapping[str, str]
    raw: Json

    @classmethod
    def of(cls, body: Json) -> Self:
        urls = dict(body.get("urls") or {})
        return cls(body["image_id"], body["job_id"], body["status"], body["bucket"], body["created_at"], urls, body)
