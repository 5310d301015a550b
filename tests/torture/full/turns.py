"""The order in which a real table hands out its jobs, beside that of a model."""

import heapq
import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import anyio

from imgsvc.jobs.counters import JobCounters
from imgsvc.jobs.table.database import Readers, open_for_writing
from imgsvc.jobs.table.job_table import JobTable
from imgsvc.jobs.table.model import Job
from imgsvc.jobs.table.quota import Quota
from imgsvc.jobs.table.row_memory import RowMemory
from imgsvc.jobs.table.writer import Writer
from imgsvc.storage.bounded_memory import BoundedMemory
from tests.support.new_jobs import new_job

UNLIMITED = Quota(1 << 40, timedelta(hours=1))
CLAIMED = 0.3  # of the jobs, while others come
GIGABYTE = 1 << 30


@dataclass(slots=True)
class Model:
    """The lowest turn is next. A new job gets the lowest that waits, or the one after its user's last if higher."""

    highest: int
    last: dict[str, int] = field(default_factory=dict)  # {user: turn}
    waiting: list[tuple[int, int, str]] = field(default_factory=list)  # (turn, how many came before, job)
    _came: int = 0

    def accept(self, user: str, job_id: str) -> None:
        head = self.waiting[0][0] if self.waiting else self.highest
        turn = max(head, self.last.get(user, 0) + 1)
        self.last[user] = turn
        self.highest = max(self.highest, turn)
        heapq.heappush(self.waiting, (turn, self._came, job_id))
        self._came += 1

    def claim(self) -> str:
        return heapq.heappop(self.waiting)[2]


async def differences(database: Path, jobs: int, users: int, seed: str) -> int:
    """How many of so many claims are of another job than the model's. Users send according to their number: the first
    most. The database may hold completed jobs of others."""
    chance = random.Random(seed)
    db = await open_for_writing(database)
    writer = Writer(db)
    with closing(sqlite3.connect(database)) as looking:
        model = Model(looking.execute("SELECT coalesce(max(turn), 0) FROM processing_jobs").fetchone()[0])
    different = 0
    async with Readers(database) as readers, anyio.create_task_group() as group:
        group.start_soon(writer.run)
        table = JobTable(readers, writer, JobCounters(), RowMemory(BoundedMemory(0)))

        async def claim() -> int:
            found = await table.claim("renders", GIGABYTE, nothing_running=False)
            return int(not isinstance(found, Job) or found.job_id != model.claim())

        for _ in range(jobs):
            user = f"turns{min(chance.randrange(users), chance.randrange(users))}"
            new = new_job(user)
            await table.accept(new, UNLIMITED)
            model.accept(user, new.job_id)
            if chance.random() < CLAIMED:
                different += await claim()
        while model.waiting:
            different += await claim()
        writer.close()
    await db.close()
    return different
