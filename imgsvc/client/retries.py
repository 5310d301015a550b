"""When a call is made again: no answer, 429, 502, 503, 504, and an upload whose first try is still being received."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

AGAIN = frozenset((429, 502, 503, 504))
IN_PROGRESS = "idempotency_in_progress"


@dataclass(frozen=True, slots=True)
class Retries:
    """At most `attempts` calls, or `unanswered` when no answer comes; pauses in seconds double from `first_pause`.

    A Retry-After is followed up to `longest_pause`; if it asks for more, the error is raised at once.
    """

    attempts: int = 5
    first_pause: float = 0.5
    longest_pause: float = 60.0
    unanswered: int = 5

    def pause(self, made: int, status: int | None, code: str, headers: Mapping[str, str]) -> float | None:
        """Seconds until the next attempt after `made` ones; None: this was the last. `status` None: no answer came."""
        if made >= (self.attempts if status is not None else min(self.attempts, self.unanswered)):
            return None
        if status is not None and status not in AGAIN and not (status == 409 and code == IN_PROGRESS):
            return None
        asked = retry_after(headers)
        if asked is not None:
            return asked if asked <= self.longest_pause else None
        doubled: float = self.first_pause * 2 ** min(made - 1, 30)
        return min(doubled, self.longest_pause) * random.uniform(0.8, 1.2)  # noqa: S311


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of Retry-After (RFC 9110 section 10.2.3), from a number or a date."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()) if text else None
    except (TypeError, ValueError):
        return None
