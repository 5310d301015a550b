"""The failures that the service itself ends a run with, and the codes that only a job has."""

from ..imaging.error_messages import GENERAL
from .retry import Failure

CANCELLED = Failure("cancelled", "The image was deleted.")  # never recorded: the row's fencing token has changed
CRASHED = Failure("worker_crashed", "The worker process broke while it processed this image.", death=True)
UNEXPECTED = Failure("internal_error", "Processing failed unexpectedly.")
NOT_STORED = Failure("storage_error", "The image could not be stored.")
PLACE_TAKEN = Failure("place_taken", "Another image's file is in the way of this one.")
IO_ERROR = Failure("io_error", GENERAL["io_error"])
NOTHING_MOVES = Failure(
    "source_not_kept",
    "What moves could only be made from a kept source or from a whole variant that moves: there is none.",
)
SOURCE_MISSING = Failure("source_missing", GENERAL["source_missing"])
ROW_DAMAGED = Failure("row_damaged", "The record of what to make of this image is damaged.")
INTERRUPTED = Failure("interrupted", "The machine that worked on this image was lost each time.")
SOURCE_DAMAGED = Failure("source_damaged", GENERAL["source_damaged"])

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
    "place_taken",
)
