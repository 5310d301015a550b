"""What becomes of a job whose run did not succeed: a pure decision."""

from dataclasses import dataclass
from typing import Literal

# The file's own doing: another attempt would end the same way.
FINAL = {"image_unreadable", "image_too_large", "image_unsupported", "memory_limit", "source_damaged", "row_damaged"}
# Codes that appear only as a job's `error_code`, never as a response.
JOB_CODES = (
    "memory_limit",
    "timeout",
    "worker_crashed",
    "interrupted",
    "source_missing",
    "source_damaged",
    "row_damaged",
    "io_error",
    "storage_error",
)
MAX_DEATHS = 2  # workers that one file may take with it
MAX_TIMEOUTS = 2  # attempts of a file that takes too long
MAX_STARTS = 10  # ends of the whole service during runs of one file
ALONE_AFTER_STARTS = 3  # from here on it runs with no other render beside it, so that these get done


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run ended. `code` is stable; the message is for the client."""

    code: str
    message: str
    death: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    outcome: Literal["retry", "fail"]
    delay_seconds: float = 0
    retryable: bool = False


def decide(failure: Failure, *, attempts: int, deaths: int, max_attempts: int, delay_seconds: float) -> Decision:
    """`attempts` and `deaths` are those before this failure.

    A worker's death is answered by one more run at once, with nothing beside it to blame; all else that may pass
    (storage, I/O) is tried again after `delay_seconds`, `max_attempts` times in all. What took too long will most
    likely do so again, at everybody's cost: it has one more try if that was its first, behind all that wait by then.
    """
    if failure.code in FINAL:
        return Decision("fail")
    if failure.code == "source_missing":  # for us to look after: bytes that turn up again may be tried again
        return Decision("fail", retryable=True)
    if failure.death:
        return Decision("fail") if deaths + 1 >= MAX_DEATHS else Decision("retry")
    if attempts + 1 >= (min(max_attempts, MAX_TIMEOUTS) if failure.code == "timeout" else max_attempts):
        return Decision("fail", retryable=True)
    return Decision("retry", delay_seconds)


def exclusive(*, deaths: int, starts: int) -> bool:
    return deaths > 0 or starts >= ALONE_AFTER_STARTS
