"""What schemathesis needs to know that no schema can say; loaded into its own process by SCHEMATHESIS_HOOKS."""

import gc
import itertools
import json
import os
import time
from typing import Any

import httpx
import schemathesis
from hypothesis import strategies as st
from schemathesis.transport.serialization import Binary

from fixtures import make
from imgsvc.http.wire.upload_fields import MAX_KEY

KNOWN: dict[str, dict[str, str]] = json.loads(
    os.environ["IMGSVC_TEST_KNOWN"]
)  # {"GET", "DELETE", "operator" (what DELETE removes for the operator) or "retry": {path parameter: what is there}}
TASKS = ("/api/v1/operator/storage/", "/api/v1/operator/images/")  # what begins with these begins a task
TASK_SECONDS = 10
numbers = itertools.count()
gc.freeze()
gc.set_threshold(100_000)  # it lives for seconds, and what it has loaded is looked at by each collection

schemathesis.openapi.format(
    "binary", st.just(Binary(make.jpeg(8, 8)))
)  # "binary" is any bytes; a photo is none of most


def _wait_for_task() -> None:
    """Only one task goes on at a time: what another operation has begun refuses each of the next one's requests."""
    url, token = os.environ["IMGSVC_TEST_URL"], os.environ["IMGSVC_TEST_OPERATOR"]
    headers, began = {"Authorization": f"Bearer {token}"}, time.monotonic()
    while time.monotonic() - began < TASK_SECONDS:
        task = httpx.get(f"{url}/api/v1/operator/storage/task", headers=headers, verify=False)  # http: no trust to load
        if task.json()["state"] != "running":
            return
        time.sleep(0.01)


def _place(case: Any) -> str:
    """What is deleted by one operation can't be deleted by another."""
    if case.path.endswith("/retry"):
        return "retry"
    if case.method == "DELETE":
        return "operator" if "/operator/" in case.path else "DELETE"
    return "GET"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """A request that the schema allows is made one that must succeed; whatever breaks the schema stays as it is."""
    # Each from an address of its own: the wrong tokens that a check sends would slow the right ones down.
    number = next(numbers)
    case.headers = {**(case.headers or {}), "X-Forwarded-For": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"}
    if isinstance(case.body, dict) and str(case.body.get("destination", "")).startswith("/"):
        case.body["destination"] = os.environ["IMGSVC_TEST_BACKUP"]  # and nowhere else on this machine
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.meta.phase.name.value != "stateful":
        known = KNOWN[_place(case)]
        case.path_parameters = {name: known.get(name, value) for name, value in (case.path_parameters or {}).items()}
    for given in (case.query, case.body):  # a time that exists and is ahead, and a cursor that was handed out
        if isinstance(given, dict):
            for name in ("created_after", "created_before", "failed_after", "failed_before", "after", "expires_at"):
                given.pop(name, None)
    if 1 <= len((case.headers or {}).get("Idempotency-Key", "")) <= MAX_KEY:
        case.headers["Idempotency-Key"] = f"key-{next(numbers)}"  # a key is good for one upload
    if case.path.endswith("/login") and case.method == "POST":
        case.body = {"token": os.environ["IMGSVC_TEST_OPERATOR"]}
    if case.method == "POST" and case.path.startswith(TASKS):
        _wait_for_task()
    if str(case.media_type) == "application/octet-stream":
        kwargs["data"] = make.jpeg(8, 8)  # its own serializer takes bytes for text
    if str(case.media_type).startswith(("image/", "application/octet-stream")):
        case.query = {"bucket": "holiday", **(case.query or {})}  # a form has it inside
