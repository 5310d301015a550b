"""Waiting for a job to end, without polling the database."""

from collections import defaultdict

import anyio


class Completions:
    """Wakes requests that wait for a job: `notify` is called after each recorded run, and they reread the row."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[anyio.Event]] = defaultdict(set)

    def notify(self, job_id: str) -> None:
        for event in self._waiting.get(job_id, ()):
            event.set()

    def wake_all(self) -> None:
        """Wake all waiting requests: the service is stopping, so they answer with the current status."""
        for events in self._waiting.values():
            for event in events:
                event.set()

    def watch(self, job_id: str) -> "Subscription":
        """Subscribe before reading the row, so that no change is missed in between."""
        return Subscription(self._waiting, job_id)


class Subscription:
    def __init__(self, waiting: dict[str, set[anyio.Event]], job_id: str) -> None:
        self._waiting = waiting
        self._job_id = job_id
        self._event = anyio.Event()

    def __enter__(self) -> "Subscription":
        self._waiting[self._job_id].add(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting[self._job_id].discard(self._event)
        if not self._waiting[self._job_id]:
            del self._waiting[self._job_id]

    async def next(self) -> None:
        """Wait until another run of the job has been recorded."""
        await self._event.wait()
        self._waiting[self._job_id].discard(self._event)
        self._event = anyio.Event()
        self._waiting[self._job_id].add(self._event)
