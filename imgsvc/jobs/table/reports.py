"""Reports for the operator: the newest, waiting and failing jobs. Indexed and bounded reads only."""

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ...lazy_dataclass import dataclass
from .database import Readers
from .model import Job, as_text, now
from .quota import Quota

MOST_COUNTED = 100_000
MOST_GROUPED = 10_000  # failed jobs of one code
NAMED = 3  # files that a group names


@dataclass(frozen=True, slots=True)
class Waiting:
    """The jobs that wait for a lane or for their next attempt, each counted up to MOST_COUNTED.

    `oldest_seconds` is the time since the oldest job that waits for a lane was accepted; None if none is waiting.
    """

    previews: int
    renders: int
    retrying: int
    oldest_seconds: float | None


@dataclass(frozen=True, slots=True)
class Rows:
    """Row counts: events by the span of their ids, windows by count; the time of the last event (RFC 3339)."""

    events: int
    last_event: str | None
    windows: int
    active_windows: int


@dataclass(frozen=True, slots=True)
class Window:
    """A user's usage of the current window."""

    user_id: str
    org_id: str
    used: int
    start: str


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """The failed jobs of one code, counted up to MOST_GROUPED, and the names of the latest ones' files."""

    code: str
    jobs: int
    last_failed_at: str
    names: list[str]


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of the audit trail."""

    kind: str
    facts: dict[str, Any]
    created_at: str


@dataclass(frozen=True, slots=True)
class LatestEvent:
    """Ids of a job's latest audit event, and of that of its preview; 0: none."""

    id: int
    preview: int


class JobReports:
    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def recent(self, limit: int, status: str | None = None) -> list[Job]:
        """The newest jobs, or the newest of one status."""
        query = "recent_jobs" if status is None else "recent_jobs_of_status"
        rows = await self._readers.fetch(query, {"limit": limit, "status": status})
        return [Job.of(row) for row in rows]

    async def next_retries(self, limit: int) -> list[Job]:
        """Jobs that will be retried, the earliest first."""
        return [Job.of(row) for row in await self._readers.fetch("next_retries", {"limit": limit})]

    async def error_groups(self, codes: Sequence[str]) -> list[ErrorGroup]:
        """The failed jobs by their code, of these codes, the latest failure first."""
        values = {"codes": json.dumps(list(codes)), "most": MOST_GROUPED, "names": NAMED}
        return [
            ErrorGroup(row["code"], row["jobs"], row["last_failed_at"], json.loads(row["names"]))
            for row in await self._readers.fetch("error_groups", values)
        ]

    async def latest_events(self, job_ids: Sequence[str]) -> dict[str, LatestEvent]:
        """By job; a job without events is missing."""
        rows = await self._readers.fetch("latest_events", {"job_ids": json.dumps(list(job_ids))})
        return {row["job_id"]: LatestEvent(row["id"], row["preview"]) for row in rows}

    async def event_span(self) -> tuple[int, int]:
        """The ids of the first and the last audit event that are kept; both 0 without any."""
        row = (await self._readers.fetch("event_ids", {}))[0]
        return row["first"] or 0, row["last"] or 0

    async def events(self, job_id: str, limit: int) -> list[Event]:
        """The audit trail of one job, the latest first."""
        rows = await self._readers.fetch("events_of_job", {"job_id": job_id, "limit": limit})
        return [Event(row["event_type"], json.loads(row["metadata"]), row["created_at"]) for row in rows]

    async def waiting(self) -> Waiting:
        rows = {row["lane"]: row for row in await self._readers.fetch("waiting_by_lane", {"most": MOST_COUNTED})}
        oldest = min((row["oldest"] for row in rows.values() if row["oldest"]), default=None)
        age = max(0.0, (now() - datetime.fromisoformat(oldest)).total_seconds()) if oldest else None
        return Waiting(rows["previews"]["jobs"], rows["renders"]["jobs"], rows["retrying"]["jobs"], age)

    async def rows(self, quota: Quota) -> Rows:
        (ids,) = await self._readers.fetch("event_ids", {})
        (windows,) = await self._readers.fetch("windows", _current(quota))
        events = ids["last"] - ids["first"] + 1 if ids["last"] else 0
        return Rows(events, ids["last_at"], windows["stored"], windows["active"])

    async def near_limit(self, quota: Quota, share: float, limit: int) -> list[Window]:
        """Users who have used at least `share` (0 to 1) of the quota in the current window, the fullest first."""
        values = {"threshold": math.ceil(quota.max_uploads * share), "limit": limit, **_current(quota)}
        rows = await self._readers.fetch("near_limit", values)
        return [Window(row["user_id"], row["org_id"], row["upload_count"], row["window_start"]) for row in rows]


def _current(quota: Quota) -> dict[str, str]:
    """The earliest and latest start of a window that is still current."""
    moment = now()
    return {"since": as_text(moment - quota.window), "now": as_text(moment)}
