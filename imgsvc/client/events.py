"""Following jobs by server-sent events (HTML Living Standard, section 9.2), without I/O: both clients use it."""

import json
from collections.abc import Iterable
from typing import Any

from .flows import API, Answer, Call, pause_after
from .models import Event
from .retries import Retries


class Follower:
    """What is to be requested to hear of jobs until each has ended, and what the lines of the answer mean.

    A request that follows one that broke off names the jobs that have not ended and the last event that was received.
    """

    def __init__(self, job_ids: Iterable[str], retries: Retries) -> None:
        self._open = dict.fromkeys(job_id.lower() for job_id in job_ids)
        self._retries = retries
        self._made = 0  # requests without an event
        self._last_id: str | None = None
        self._fields: dict[str, str] = {}

    @property
    def has_ended(self) -> bool:
        return not self._open

    def call(self) -> Call:
        """The next request for a stream."""
        self._fields = {}
        headers = {"Accept": "text/event-stream"}
        if self._last_id is not None:
            headers["Last-Event-ID"] = self._last_id
        return Call("GET", f"{API}/events", {"jobs": ",".join(self._open)}, headers)

    def line(self, text: str) -> Event | None:
        """The event that this line ends, if it does."""
        name, _, value = text.partition(":")
        if name:
            self._fields[name] = value.removeprefix(" ")  # the service writes the data of an event as one line
            return None
        if text or "data" not in self._fields:  # a comment, or the end of one
            return None
        fields, self._fields = self._fields, {}
        self._last_id = fields.get("id", self._last_id)
        data: dict[str, Any] = json.loads(fields["data"])
        found = Event(fields.get("event", ""), data["job_id"], data)
        if found.kind == "end":
            self._open.pop(found.job_id, None)
        self._made = 0
        return found

    def pause(self, answer: Answer) -> float:
        """Seconds until the next request, after a stream that ended early or never began.

        Raises Refused, or ConnectionFailed after as many requests without an event as there may be attempts.
        """
        self._made += 1
        return pause_after(self.call(), self._made, answer, self._retries)


BROKEN_OFF = Answer(None, {}, b"the stream ended before the jobs did")
