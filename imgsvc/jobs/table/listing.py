"""Lists of images, newest first: each filter by an index, and each page by a bounded amount of work.

The statements are put together here and not in queries.sql: the filters have some hundred combinations, of which each
must name its index. SQLite would sort, or read all of a user's rows, where its estimate of a filter is wrong.
"""

from functools import cached_property
from typing import Any

from ...lazy_dataclass import dataclass
from .database import Readers
from .model import Job, Status

MOST_LOOKED_AT = 5_000  # rows, of which a page shows those that match
FEW_LOOKED_AT = 500  # rows, of which most pages are filled: walking more costs more than the page
FEW_NAMES = 500  # so many rows with a prefix are sorted; more are found on the way through the newest
LAST_CHARACTER = "\U0010ffff"
EQUALS = {
    "org_id": "org_id",
    "user_id": "user_id",
    "bucket": "storage_bucket",
    "status": "status",
    "sha256": "sha256",
    "error_code": "error_code",
}
PARAMETERS = {column: name for name, column in EQUALS.items()}
WITHIN = "(created_at, image_id) < (:created_at, :image_id) AND (created_at, image_id) >= (:since, :since_id)"
BEGINS = "folded_name >= :name AND folded_name < :name_end"
NEWEST_FIRST = "ORDER BY created_at DESC, image_id DESC"


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two images: after the one that was accepted at `created_at` (RFC 3339)."""

    created_at: str
    image_id: str


FIRST = Position("~", "")  # sorts behind every time


@dataclass(frozen=True)
class ImageFilter:
    """What is listed; None: all. `name` is a prefix. Times are RFC 3339 as in the table, `before` exclusive.

    A user is one of an organisation: `user_id` comes with `org_id`.
    """

    org_id: str | None = None
    user_id: str | None = None
    bucket: str | None = None
    status: Status | None = None
    sha256: str | None = None
    name: str | None = None
    since: str = ""
    before: str = ""
    error_code: str | None = None
    failed_since: str = ""
    failed_before: str = ""

    @cached_property
    def equal(self) -> dict[str, str]:
        """{column: parameter} of what must be equal."""
        return {column: name for name, column in EQUALS.items() if getattr(self, name) is not None}

    @property
    def failed(self) -> tuple[str, ...]:
        """Terms on when it failed. No index is by it: a page may be short."""
        since = ("failed_at >= :failed_since",) if self.failed_since else ()
        return (*since, "failed_at < :failed_before") if self.failed_before else since

    @property
    def by_prefix(self) -> tuple[str, tuple[str, ...]]:
        """The index that is ordered by name, and the columns before the name."""
        return ("images_of_user_by_name", ("org_id", "user_id")) if self.user_id is not None else ("images_by_name", ())

    @property
    def by_time(self) -> tuple[str, tuple[str, ...]]:
        """The index that is ordered by time for the filter that leaves fewest rows, and its columns before the time."""
        if self.sha256 is not None:
            return "images_by_sha256", ("sha256",)
        if self.error_code is not None:
            return "jobs_by_error", ("error_code",)
        own = self.user_id is not None
        if self.status not in (None, "completed"):
            if own:
                return "images_of_user_unfinished", ("org_id", "user_id", "status")
            return "jobs_recent_of_status", ("status",)
        if self.bucket is not None:
            if own:
                return "images_of_user_in_bucket", ("org_id", "user_id", "storage_bucket")
            return "images_in_bucket", ("storage_bucket",)
        if own:
            return "images_of_user", ("org_id", "user_id")
        return ("images_of_org", ("org_id",)) if self.org_id is not None else ("jobs_recent", ())

    def values(self, after: Position) -> dict[str, Any]:
        """The parameters of the statements, for the rows behind a position."""
        # One that failed before a time was accepted before it.
        ends = [Position(end, "") for end in (self.before, self.failed_before) if end]
        upper = min([after, *ends], key=_order)
        values: dict[str, Any] = {name: getattr(self, name) for name in EQUALS}
        bounds = {"created_at": upper.created_at, "image_id": upper.image_id, "since": self.since, "since_id": ""}
        failed = {"failed_since": self.failed_since, "failed_before": self.failed_before}
        return values | bounds | failed | {"name": self.name, "name_end": f"{self.name}{LAST_CHARACTER}"}


@dataclass(frozen=True, slots=True)
class Page:
    """Some images, perhaps none, and where to go on; None: there are no more."""

    jobs: list[Job]
    next: Position | None


class ImageLists:
    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def page(self, wanted: ImageFilter, after: Position, limit: int) -> Page:
        """The next images behind `after`. A page looks at MOST_LOOKED_AT rows at most, so it may be short."""
        values = {**wanted.values(after), "limit": limit + 1}
        if wanted.name is not None and wanted.sha256 is None and await self._has_few_names(wanted, values):
            return await self._of_few_names(wanted, values, limit)
        _, leading = wanted.by_time
        # Not every row of the index matches.
        rarely = wanted.name is not None or wanted.failed or wanted.equal.keys() - {*leading}
        jobs, end = await self._newest(wanted, values, FEW_LOOKED_AT if rarely else None)
        if end is not None and len(jobs) <= limit:
            jobs, end = await self._newest(wanted, values, MOST_LOOKED_AT)
        if len(jobs) > limit:
            jobs, end = jobs[:limit], _position(jobs[limit - 1])
        return Page([job for job in jobs if not job.expired], end)

    async def _newest(
        self, wanted: ImageFilter, values: dict[str, Any], looked_at: int | None
    ) -> tuple[list[Job], Position | None]:
        """What matches among the next rows of the index, and the last of these rows; None: there are no more."""
        index, _ = wanted.by_time
        end = await self._end(wanted, values, looked_at) if looked_at is not None else None
        bounds = {"since": end.created_at, "since_id": end.image_id} if end is not None else {}
        statement = _select("*", index, wanted, (WITHIN,), f"{NEWEST_FIRST} LIMIT :limit")
        rows = await self._readers.select("list_page", statement, values | bounds)
        return [Job.of(row) for row in rows], end

    async def _end(self, wanted: ImageFilter, values: dict[str, Any], looked_at: int) -> Position | None:
        """The last row that is looked at; None: there are fewer."""
        index, leading = wanted.by_time
        statement = _walk(index, leading, WITHIN, f"{NEWEST_FIRST} LIMIT 1 OFFSET {looked_at - 1}")
        rows = await self._readers.select("list_end", statement, values)
        return Position(rows[0]["created_at"], rows[0]["image_id"]) if rows else None

    async def _has_few_names(self, wanted: ImageFilter, values: dict[str, Any]) -> bool:
        index, leading = wanted.by_prefix
        statement = _walk(index, leading, BEGINS, f"LIMIT 1 OFFSET {FEW_NAMES}")
        return not await self._readers.select("list_names", statement, values)

    async def _of_few_names(self, wanted: ImageFilter, values: dict[str, Any], limit: int) -> Page:
        """The page among all rows with the prefix: few enough to be sorted here."""
        index, _ = wanted.by_prefix
        statement = _select("created_at, image_id", index, wanted, (WITHIN,), "")
        rows = await self._readers.select("list_named", statement, values)
        found = sorted((tuple(row) for row in rows), reverse=True)
        shown = [image_id for _, image_id in found[:limit]]
        if not shown:
            return Page([], None)
        names = {f"image_{number}": image_id for number, image_id in enumerate(shown)}
        wanted_ids = ", ".join(f":{name}" for name in names)
        statement = f"SELECT * FROM processing_jobs WHERE image_id IN ({wanted_ids}) AND deleted_at IS NULL"  # noqa: S608
        rows = await self._readers.select("list_shown", statement, names)
        unexpired = (job for row in rows if not (job := Job.of(row)).expired)
        jobs = sorted(unexpired, key=lambda job: _order(_position(job)), reverse=True)
        return Page(jobs, Position(*found[limit - 1]) if len(found) > limit else None)


def _select(what: str, index: str, wanted: ImageFilter, more: tuple[str, ...], end: str) -> str:
    """All rows of an index that match the filter."""
    equal = [f"{column} = :{name}" for column, name in wanted.equal.items()]
    # The partial index of unfinished images is used only where its own condition is written out.
    unfinished = ["status <> 'completed'"] if index == "images_of_user_unfinished" else []
    begins = [BEGINS] if wanted.name is not None else []
    terms = [*equal, *begins, *wanted.failed, *more, *unfinished, "deleted_at IS NULL"]
    return f"SELECT {what} FROM processing_jobs INDEXED BY {index} WHERE {' AND '.join(terms)} {end}"  # noqa: S608


def _walk(index: str, leading: tuple[str, ...], more: str, end: str) -> str:
    """Rows of an index whether they match the rest of the filter or not: reads the index alone."""
    wanted = [f"{column} = :{PARAMETERS[column]}" for column in leading]
    unfinished = ["status <> 'completed'"] if index == "images_of_user_unfinished" else []
    terms = " AND ".join([*wanted, more, *unfinished, "deleted_at IS NULL"])
    return f"SELECT created_at, image_id FROM processing_jobs INDEXED BY {index} WHERE {terms} {end}"  # noqa: S608


def _position(job: Job) -> Position:
    return Position(job.created_at, job.image_id)


def _order(position: Position) -> tuple[str, str]:
    return position.created_at, position.image_id
