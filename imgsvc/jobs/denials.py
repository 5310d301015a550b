"""Refusals in the audit trail: each is told once an hour or window, so that whoever keeps asking fills no disk."""

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Any

import structlog

from .table.job_table import JobTable
from .table.model import Job, now
from .table.writer import DatabaseUnavailable

log = structlog.get_logger()

HOUR = timedelta(hours=1)
MAX_NOTED = 10_000  # refusals of this window or hour that are remembered


class Denials:
    def __init__(self, table: JobTable) -> None:
        self._table = table
        self._noted: OrderedDict[tuple[str, ...], datetime] = OrderedDict()

    async def note(
        self,
        kind: str,
        org_id: str,
        user_id: str,
        *,
        until: datetime | None = None,
        job: Job | None = None,
        **facts: Any,
    ) -> None:
        """Write the event, and not again for this user (and job) before `until`, without which it is the hour's end.

        A refusal stays what it is where nothing can be written: then the log alone says so.
        """
        what = (kind, org_id, user_id, job.job_id if job else "")
        if (noted := self._noted.get(what)) and now() < noted:
            return
        self._noted[what] = until or now().replace(minute=0, second=0, microsecond=0) + HOUR
        self._noted.move_to_end(what)  # what is refused again and again must not be the first to be forgotten
        if len(self._noted) > MAX_NOTED:
            self._noted.popitem(last=False)
        facts = {"org_id": org_id, "user_id": user_id, **facts}
        try:
            await self._table.note(kind, facts, job)
        except DatabaseUnavailable:
            self._noted.pop(what, None)
            log.warning("refusal_not_in_audit", kind=kind, **facts)
