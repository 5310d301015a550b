"""The job's data types."""

import hashlib
import json
import unicodedata
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import Any, Literal, Self, get_args

import aiosqlite

from ...imaging.recipe import FORMAT, Recipe, Variant, is_further
from ...lazy_dataclass import dataclass
from ...storage.keys import source_key, variant_key

Status = Literal["pending", "processing", "retrying", "completed", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)
QueueName = Literal["previews", "renders"]
# Columns of later migrations with their defaults: a backup's database is read without migrating it.
LATER_COLUMNS = (
    "retried_at",
    "also_in",
    "revision",
    "expires_at",
    "ticket_id",
    "source_key",
    "source_bytes",
    "source_sha256",
)
LATER = (None, None, 0, None, None, None, None, None)
SOURCE_BYTES = 16  # of a SHA-256: what is found by it is compared in full
TEXTS = {  # fields that contain the column's JSON text
    "paths_text": "processed_paths",
    "measured_text": "processing_metadata",
    "client_text": "client_metadata",
    "recipe_text": "recipe",
}


def now() -> datetime:
    return datetime.now(UTC)


def as_text(moment: datetime) -> str:
    """RFC 3339 in UTC, always with six decimals and +00:00: a fixed width, so that times compare as text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def folded(name: str) -> str:
    """A file name as it is searched for: case folded, and composed (Unicode NFC)."""
    return unicodedata.normalize("NFC", name).casefold()


@dataclass(frozen=True, slots=True)
class NewJob:
    """An upload whose bytes are staged and synced. Sizes in bytes."""

    job_id: str
    image_id: str
    user_id: str
    org_id: str
    bucket: str
    staging_path: str
    original_filename: str
    client_metadata: dict[str, Any]
    trace_id: str
    mime_type: str
    content_length: int
    sha256: str
    pixels: int
    preview_bytes: int | None
    render_bytes: int
    storage_backend: str
    recipe: Recipe
    max_attempts: int
    idempotency_key: str | None = None
    expires_at: str | None = None
    key_id: str | None = None  # the API key that it was uploaded with, or that issued its ticket
    ticket_id: str | None = None
    reuse: bool = True  # of variants that the same user's same photo has
    fetched_from: str | None = None  # the host, of an upload by address
    erasures_seen: int = 0  # the latest erasure of a person when the upload began

    @property
    def source(self) -> bytes:
        """A digest that the jobs of the same user with the same bytes and recipe have in common."""
        content = json.dumps([self.org_id, self.user_id, self.sha256, self.recipe.to_json()])
        return hashlib.sha256(content.encode()).digest()[:SOURCE_BYTES]

    @property
    def source_key(self) -> str | None:
        """The key under which its source will be kept; None: it will not."""
        return None if self.recipe.keep_source == "none" else source_key(self.image_id, self.mime_type)

    @property
    def idempotency_digest(self) -> str | None:
        """The digest that a repeated request with the same key must match."""
        if self.idempotency_key is None:
            return None
        content = json.dumps([self.sha256, self.bucket, self.client_metadata], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class StoredVariant:
    """A stored variant: its size in bytes, its SHA-256 in hex, and when it was made (RFC 3339)."""

    bucket: str
    key: str
    size_bytes: int
    digest: str
    modified: str
    format: str = FORMAT

    @property
    def media_type(self) -> str:
        return f"image/{self.format}"

    @cached_property
    def etag(self) -> str:
        return f'"{self.digest[:32]}"'

    @cached_property
    def last_modified(self) -> datetime:
        """To the second, as a header has it."""
        return datetime.fromisoformat(self.modified).replace(microsecond=0)

    @cached_property
    def last_modified_text(self) -> str:
        """As a header has it (RFC 9110 section 5.6.7)."""
        return format_datetime(self.last_modified, usegmt=True)


@dataclass(frozen=True)
class Job:
    """A row of processing_jobs. Times are RFC 3339 text, sizes bytes."""

    job_id: str
    image_id: str
    status: Status
    storage_bucket: str
    staging_path: str | None
    attempt_count: int
    max_retries: int
    last_error: str | None
    created_at: str
    started_at: str | None
    completed_at: str | None
    error_code: str | None
    retryable: bool
    next_attempt_at: str | None
    failed_at: str | None
    retried_at: str | None
    deleted_at: str | None
    user_id: str | None
    org_id: str | None
    original_filename: str | None
    trace_id: str
    mime_type: str
    content_length: int
    sha256: str
    pixels: int
    preview_bytes: int | None
    render_bytes: int
    storage_backend: str
    also_in: str | None
    expires_at: str | None
    ticket_id: str | None
    queue: QueueName | None
    turn: int
    run: int
    starts: int
    deaths: int
    preview: str
    paths_text: str
    measured_text: str
    client_text: str
    recipe_text: str
    revision: int
    source_key: str | None
    source_bytes: int | None
    source_sha256: str | None

    @classmethod
    def of(cls, row: aiosqlite.Row) -> Self:
        """Build from a row of `SELECT *`, of the current schema or an older one."""
        take = _taken(tuple(row.keys()))
        job = cls.__new__(cls)
        # Fill the instance directly: a frozen dataclass makes a call for each of its forty fields, in each of 100 rows.
        vars(job).update(zip(FIELDS, take(tuple(row) + LATER), strict=True))
        vars(job)["retryable"] = bool(job.retryable)
        return job

    @cached_property
    def paths(self) -> dict[str, str]:
        """{variant: key} of the stored variants."""
        return dict(json.loads(self.paths_text))

    @cached_property
    def measured(self) -> dict[str, Any]:
        """The measurements: dominant_color, thumbhash, original_dimensions, frames, variants."""
        return dict(json.loads(self.measured_text))

    @cached_property
    def client_metadata(self) -> dict[str, Any]:
        return dict(json.loads(self.client_text))

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe of the receipt. If its text is damaged, one for the stored variants: they stay reachable."""
        if self._whole_recipe is not None:
            return self._whole_recipe
        return Recipe(tuple(Variant(name, 0, 0, 0) for name in self.paths if not is_further(name)), 0, 0)

    @property
    def recipe_damaged(self) -> bool:
        """Whether the recipe's text is damaged, so that nothing can be rendered from it."""
        return self._whole_recipe is None

    @cached_property
    def _whole_recipe(self) -> Recipe | None:
        try:
            return Recipe.from_json(self.recipe_text)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    @property
    def ready(self) -> dict[str, str]:
        """{variant: key} of the variants that can be fetched, in further formats too (`medium.avif`). Empty for a
        failed job, even during its cleanup."""
        return {} if self.status == "failed" or self.deleted_at else self.paths

    @cached_property
    def formats(self) -> dict[str, dict[str, str]]:
        """{further format: {size: variant}} of the variants that can be fetched."""
        found: dict[str, dict[str, str]] = {}
        for variant in self.recipe.further:
            if variant.name in self.ready:
                found.setdefault(variant.format, {})[variant.size] = variant.name
        return found

    @property
    def stored_keys(self) -> tuple[str, ...]:
        """The keys of all that is, or may be, stored."""
        return (*self.paths.values(), *([self.source_key] if self.source_key else []))

    @property
    def kept_source(self) -> StoredVariant | None:
        """The source, if it is kept."""
        if self.status != "completed" or self.deleted_at or not (self.source_key and self.source_sha256):
            return None
        return StoredVariant(
            bucket=self.storage_bucket,
            key=self.source_key,
            size_bytes=self.source_bytes or 0,
            digest=self.source_sha256,
            modified=self.completed_at or self.created_at,
            format=self.mime_type.removeprefix("image/"),
        )

    def stored(self, variant: str) -> StoredVariant:
        """A variant that is ready."""
        found = self._stored.get(variant)
        if found is None:
            made = self.measured["variants"][variant]
            found = self._stored[variant] = StoredVariant(
                bucket=self.storage_bucket,
                key=self.ready[variant],
                size_bytes=made["size_bytes"],
                digest=made["sha256"],
                modified=made.get("modified") or self.completed_at or self.started_at or self.created_at,
                format=made.get("format", FORMAT),
            )
        return found

    @cached_property
    def names(self) -> dict[str, str]:
        """{key: variant} of the variants that are ready."""
        return {key: name for name, key in self.ready.items()}

    @property
    def text_length(self) -> int:
        """Characters of the row's texts, which are most of what it takes in memory."""
        texts = (self.paths_text, self.measured_text, self.client_text, self.recipe_text, self.original_filename or "")
        return sum(map(len, texts))

    @cached_property
    def derived(self) -> dict[str, Any]:
        """What others have made of this row and keep with it, by name. It follows from the row alone."""
        return {}

    @cached_property
    def _stored(self) -> dict[str, StoredVariant]:
        return {}

    @property
    def can_retry(self) -> bool:
        """Whether the operator may restart it: it has failed, and its row still names the source."""
        return self.status == "failed" and self.staging_path is not None and self.retryable and not self.deleted_at

    @property
    def expired(self) -> bool:
        """Whether the image's time is over by the wall clock, so that it must look non-existent."""
        return self.expires_at is not None and self.expires_at <= as_text(now())

    @property
    def seconds_left(self) -> int | None:
        """Whole seconds until the image expires; None: never."""
        if self.expires_at is None:
            return None
        return max(0, int((datetime.fromisoformat(self.expires_at) - now()).total_seconds()))

    @property
    def began_at(self) -> str:
        """When the job was accepted, or when the operator restarted it."""
        return self.retried_at or self.created_at

    def key(self, variant: str) -> str:
        """The first key of a variant in its bucket: a repeated run overwrites the same files."""
        every = (*self.recipe.variants, *self.recipe.further)
        found = next((one for one in every if one.name == variant), Variant(variant, 0, 0, 0))
        return variant_key(found.size, self.image_id, ending=found.format)


FIELDS = tuple(field.name for field in fields(Job))


@lru_cache(maxsize=32)
def _taken(columns: tuple[str, ...]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Return a function that takes a job's fields, in order, from a row of these columns followed by LATER.

    It works by position: access by name searches all columns of the row.
    """
    there = columns + LATER_COLUMNS
    return itemgetter(*(there.index(TEXTS.get(name, name)) for name in FIELDS))
