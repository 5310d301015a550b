"""Each call as a generator that asks for requests and pauses: the same for both clients, without I/O."""

import json
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

from .errors import ConnectionFailed, JobFailed, Refused, StillProcessing
from .models import Image, Job, Json, ListedImage, Receipt
from .retries import Retries, retry_after
from .sources import Form

T = TypeVar("T")
LONGEST_WAIT = 30  # seconds of one long-poll; the service's limit
API, USAGE = "/api/v1/images", "/api/v1/usage"


@dataclass(frozen=True, slots=True)
class Call:
    """A request to be sent; `path` may be a whole URL, which gets no token. `body` makes a new iterator each time."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Iterator[bytes]] | None = None
    can_repeat: bool = True


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` None: no answer came, and `body` says why. Names of headers are in lower case."""

    status: int | None
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body; {} if it is no JSON object."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


Flow = Generator[Call | Pause, Answer, T]


def sent(call: Call, retries: Retries) -> Flow[Answer]:
    """An answer of success, after as many attempts as it takes. Raises Refused or ConnectionFailed."""
    made = 0
    while True:
        answer = yield call
        made += 1
        if answer.status is not None and answer.status < 400:
            return answer
        yield Pause(pause_after(call, made, answer, retries))


def pause_after(call: Call, made: int, answer: Answer, retries: Retries) -> float:
    """Seconds until a call that failed `made` times is sent again. Raises Refused or ConnectionFailed if it is not."""
    problem = answer.json
    pause = retries.pause(made, answer.status, str(problem.get("code", "")), answer.headers)
    if pause is not None and call.can_repeat:
        return pause
    if answer.status is None:
        raise ConnectionFailed(f"{call.method} {call.path}: {answer.body.decode()}")
    raise Refused(answer.status, problem, retry_after(answer.headers))


def upload(form: Form, key: str | None, retries: Retries) -> Flow[Receipt]:
    """With an Idempotency-Key of its own unless one is given, so that an attempt whose answer was lost makes no second
    image.
    """
    headers = {**form.headers, "Idempotency-Key": key or str(uuid.uuid4())}
    call = Call("POST", f"{API}/upload", headers=headers, body=form.pieces, can_repeat=form.can_repeat)
    answer = yield from sent(call, retries)
    return Receipt.of(answer.json, replayed=answer.headers.get("idempotency-replayed") == "true")


def job(job_id: str, retries: Retries, wait: float | None = None) -> Flow[Job]:
    headers = {} if wait is None else {"Prefer": f"wait={max(1, min(LONGEST_WAIT, round(wait)))}"}
    answer = yield from sent(Call("GET", f"{API}/jobs/{_part(job_id)}", headers=headers), retries)
    return Job.of(answer.json)


def waited(job_id: str, seconds: float, retries: Retries) -> Flow[Job]:
    """The completed job, by long-poll. Raises JobFailed or StillProcessing."""
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        found = yield from job(job_id, retries, max(left, 0))
        if found.status == "completed":
            return found
        if found.status == "failed":
            raise JobFailed(job_id, found.error_code, found.error, retryable=bool(found.retryable))
        if time.monotonic() >= deadline:
            raise StillProcessing(f"job {job_id} is {found.status} after {seconds:g} seconds")


def image(image_id: str, retries: Retries) -> Flow[Image]:
    answer = yield from sent(Call("GET", f"{API}/{_part(image_id)}/all"), retries)
    return Image.of(answer.json)


def delete(image_id: str, retries: Retries) -> Flow[int]:
    """The number of files that were removed."""
    answer = yield from sent(Call("DELETE", f"{API}/{_part(image_id)}"), retries)
    return int(answer.json["files_removed"])


def update(image_id: str, changes: Mapping[str, Any], retries: Retries) -> Flow[Json]:
    """The image as it is then. A merge patch (RFC 7396) can be repeated."""
    body = json.dumps(dict(changes)).encode()
    headers = {"Content-Type": "application/merge-patch+json", "Content-Length": str(len(body))}
    call = Call("PATCH", f"{API}/{_part(image_id)}", headers=headers, body=lambda: iter((body,)))
    answer = yield from sent(call, retries)
    return answer.json


def content(image_id: str, size: str, retries: Retries) -> Flow[bytes]:
    """The bytes of a variant, from where the service says: its own path, or a URL of the object storage."""
    found = yield from sent(Call("GET", f"{API}/{_part(image_id)}", params={"size": size}), retries)
    answer = yield from sent(Call("GET", found.json["url"]), retries)
    return answer.body


def fetch(url: str, bucket: str, metadata: Mapping[str, Any], retries: Retries) -> Flow[Receipt]:
    """An upload by its address. It has no Idempotency-Key, so it is attempted once."""
    body = json.dumps({"url": url, "bucket": bucket, "metadata": dict(metadata)}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    call = Call("POST", f"{API}/fetch", headers=headers, body=lambda: iter((body,)), can_repeat=False)
    answer = yield from sent(call, retries)
    return Receipt.of(answer.json, replayed=False)


def ticket(wanted: Mapping[str, Any], retries: Retries) -> Flow[Json]:
    """An upload ticket. One whose answer was lost is never used, and ends by itself."""
    body = json.dumps(dict(wanted)).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    answer = yield from sent(Call("POST", f"{API}/tickets", headers=headers, body=lambda: iter((body,))), retries)
    return answer.json


def usage(retries: Retries) -> Flow[Json]:
    answer = yield from sent(Call("GET", USAGE), retries)
    return answer.json


def page(filters: Mapping[str, str], retries: Retries) -> Flow[tuple[list[ListedImage], str | None]]:
    """A page of a list, and the cursor of the next; None: it was the last."""
    answer = yield from sent(Call("GET", API, params=filters), retries)
    body = answer.json
    return [ListedImage.of(one) for one in body["images"]], body["next"]


def _part(text: str) -> str:
    return quote(text, safe="").replace(".", "%2E")
