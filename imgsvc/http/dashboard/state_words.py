"""The states of jobs in the operator's words."""

from ...jobs.table.model import Status

STATE_WORDS: dict[Status, str] = {
    "pending": "waiting",
    "processing": "begun",
    "retrying": "to be retried",
    "completed": "completed",
    "failed": "failed",
}
