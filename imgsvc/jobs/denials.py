"""Denied requests in the audit trail, at most one per hour or window: repeated requests must not fill the disk."""

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Any

import structlog

from .table.job_table import JobTable
from .table.model import Job, now
from .table.writer import DatabaseUnavailable

log = structlog.get_logger()

HOUR = timedelta(hours=1)
MAX_RECORDED = 10_000  # denials of this window or hour that are kept in memory


class Denials:
    def __init__(self, table: JobTable) -> None:
        self._table = table
        self._recorded: OrderedDict[tuple[str, ...], datetime] = OrderedDict()

    async def record(
        self,
        kind: str,
        org_id: str,
        user_id: str,
        *,
        until: datetime | None = None,
        job: Job | None = None,
        **facts: Any,
    ) -> None:
        """Write the event, at most once for this user (and job) before `until`, which defaults to the end of the hour.

        If the event can't be written, the request is still denied; only the log shows it then.
        """
        what = (kind, org_id, user_id, job.job_id if job else "")
        if (noted := self._recorded.get(what)) and now() < noted:
            return
        self._recorded[what] = until or now().replace(minute=0, second=0, microsecond=0) + HOUR
        self._recorded.move_to_end(what)  # a denial that keeps recurring must not be evicted first
        if len(self._recorded) > MAX_RECORDED:
            self._recorded.popitem(last=False)
        facts = {"org_id": org_id, "user_id": user_id, **facts}
        try:
            await self._table.record_event(kind, facts, job)
        except DatabaseUnavailable:
            self._recorded.pop(what, None)
            log.warning("denial_not_recorded", kind=kind, **facts)
