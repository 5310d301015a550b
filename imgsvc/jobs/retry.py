"""Decides what happens to a job whose run failed. A pure function."""

from typing import Literal

from ..lazy_dataclass import dataclass

# Caused by the file itself: another attempt would end the same way.
FINAL = {"image_unreadable", "image_too_large", "image_unsupported", "memory_limit", "source_damaged", "row_damaged"}
NEEDS_OPERATOR = {
    "source_missing",
    "source_not_kept",
    "place_taken",
    "interrupted",
}  # another attempt helps only after a repair
MAX_DEATHS = 2  # worker crashes that one file may cause
MAX_TIMEOUTS = 2  # attempts for a file that takes too long
MAX_STARTS = 10  # times that the whole service may end during a run of one file
ALONE_AFTER_STARTS = 3  # from then on no other render runs at the same time, so that the others get done


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed. `code` is stable; the message is for the client."""

    code: str
    message: str
    death: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    outcome: Literal["retry", "fail"]
    delay_seconds: float = 0
    retryable: bool = False


def decide(failure: Failure, *, attempts: int, deaths: int, max_attempts: int, delay_seconds: float) -> Decision:
    """Decide what follows a failure. `attempts` and `deaths` (worker crashes) are the counts before it.

    After a worker crash the job runs once more at once, alone, so that no other job can be the cause. Other temporary
    failures (storage, I/O) are retried after `delay_seconds`, `max_attempts` times in all. A job that took too long
    will probably do so again and delay the others: it gets one more attempt if that was its first, behind all waiting
    jobs.
    """
    if failure.code in FINAL:
        return Decision("fail")
    if failure.code in NEEDS_OPERATOR:  # an operator's problem: the job can be retried if the bytes turn up again
        return Decision("fail", retryable=True)
    if failure.death:
        return Decision("fail") if deaths + 1 >= MAX_DEATHS else Decision("retry")
    if attempts + 1 >= (min(max_attempts, MAX_TIMEOUTS) if failure.code == "timeout" else max_attempts):
        return Decision("fail", retryable=True)
    return Decision("retry", delay_seconds)


def exclusive(*, deaths: int, starts: int) -> bool:
    return deaths > 0 or starts >= ALONE_AFTER_STARTS
