"""Sends a file to the tested instance, and waits for its job."""

import json
import time
from collections.abc import Mapping
from typing import Any

import httpx

from .http_client import Instance, TimeIsOver, Unexpected, code, outcome
from .token import PERMISSIONS

API = "/api/v1/images"
WAIT_SECONDS = 10  # of one request for the job: less than a proxy's time limit
POLL_SECONDS = 0.2


def send(
    instance: Instance, bucket: str, file: tuple[str, bytes, str], headers: Mapping[str, str], expected: int
) -> httpx.Response:
    """Upload a file, given as name, bytes and type. Raises Unexpected for another status than the expected one."""
    fields = {"bucket": bucket, "metadata": json.dumps({})}
    answer = instance.ask("POST", f"{instance.base}{API}/upload", headers, data=fields, files={"file": file})
    if answer.status_code != expected:
        hint = f"; the token needs {', '.join(PERMISSIONS)}" if code(answer) == "permission_denied" else ""
        raise Unexpected(f"{outcome(answer)} instead of {expected}{hint}")
    return answer


def completed(instance: Instance, job_id: str) -> dict[str, Any]:
    """Wait for a job's end; returns its status. Raises Unexpected if it fails, or not within the time limit."""
    job: dict[str, Any] = {}
    while True:
        try:
            wait = int(max(1, min(WAIT_SECONDS, instance.left() - 1)))
            job = instance.call("GET", f"{API}/jobs/{job_id}", {"Prefer": f"wait={wait}"}).json()
        except TimeIsOver:
            if not job:
                raise
            raise Unexpected(f"the job is still {job['status']} at the end of the time") from None
        if job["status"] == "completed":
            return job
        if job["status"] == "failed":
            raise Unexpected(f"the job failed: {job['error']} ({job['error_code']})")
        time.sleep(POLL_SECONDS)
