"""How long a delivery waits for its next attempt."""

import random
from datetime import datetime, timedelta

from ..jobs.table.webhook_table import GIVEN_UP_AFTER

FIRST_SECONDS, LONGEST_SECONDS, FACTOR = 5.0, 6 * 3600.0, 3.0
JITTER = 0.2  # of the pause, up and down: endpoints that were down together are not called together


def pause_seconds(attempts: int, chance: float) -> float:
    """After `attempts` failed ones: 5 s, 15 s, 45 s, … and 6 hours at most. `chance`: from 0 to 1."""
    exponent = min(max(attempts, 1) - 1, 20)
    return min(FIRST_SECONDS * FACTOR**exponent, LONGEST_SECONDS) * (1 + JITTER * (2 * chance - 1))


def next_attempt(attempts: int, waiting_since: datetime, moment: datetime) -> datetime | None:
    """When to try again; None: it is given up, three days after it began to wait."""
    due = moment + timedelta(seconds=pause_seconds(attempts, random.random()))  # noqa: S311, no secret
    return due if due < waiting_since + GIVEN_UP_AFTER else None
