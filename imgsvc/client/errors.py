"""What a call may raise. All of it is an ImgsvcError."""

from collections.abc import Mapping
from typing import Any


class ImgsvcError(Exception):
    """The base of all errors of this client."""


class ConnectionFailed(ImgsvcError):
    """No answer came, after all attempts."""


class Refused(ImgsvcError):
    """The service answered with an error (RFC 9457).

    `code` is stable; `trace_id` finds its lines in the service's log.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.status = status
        self.code = str(problem.get("code", ""))
        self.detail = str(problem.get("detail") or f"status {status}")
        self.reason = str(problem["reason"]) if problem.get("reason") else None
        self.trace_id = str(problem.get("trace_id", ""))
        self.retry_after = retry_after  # seconds, if the service said when to try again
        self.problem = dict(problem)
        words = f"{self.detail} {self.reason}" if self.reason else self.detail
        super().__init__(f"{words} ({self.code or status}, trace {self.trace_id or 'unknown'})")


class JobFailed(ImgsvcError):
    """The job has ended without an image."""

    def __init__(self, job_id: str, code: str | None, words: str | None, *, retryable: bool) -> None:
        self.job_id, self.code, self.retryable = job_id, code, retryable
        super().__init__(f"job {job_id} failed: {words or 'no reason given'} ({code})")


class StillProcessing(ImgsvcError):
    """The job has not ended within the time."""


class WebhookInvalid(ImgsvcError):
    """The message was not signed with this secret, or is too old."""
