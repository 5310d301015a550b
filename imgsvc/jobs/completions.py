"""Waiting for a job to end without asking again and again."""

from collections import defaultdict

import anyio


class Completions:
    """Whoever settles a run says so here; whoever waits for its job is woken and looks at the row."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[anyio.Event]] = defaultdict(set)

    def settled(self, job_id: str) -> None:
        for event in self._waiting.get(job_id, ()):
            event.set()

    def wake_all(self) -> None:
        """The service is stopping: whoever waits gets things as they stand."""
        for events in self._waiting.values():
            for event in events:
                event.set()

    def watch(self, job_id: str) -> "Subscription":
        """Everything settled from now on is seen: watch first, then read the row."""
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
        """Wait until the job has been settled once more."""
        await self._event.wait()
        self._waiting[self._job_id].discard(self._event)
        self._event = anyio.Event()
        self._waiting[self._job_id].add(self._event)
