"""Jobs followed by events: against the real application, and where streams break off."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fixtures import make
from imgsvc.client import AsyncClient, Client, ConnectionFailed, Refused, Retries
from tests.conftest import Starter

UNKNOWN = "0f6f2f4e-7b0f-4f61-9a5e-2f6d2f3e1c11"
FIRST, SECOND = UNKNOWN.replace("0f6f", "aaaa"), UNKNOWN.replace("0f6f", "bbbb")
QUICK = Retries(attempts=4, first_pause=0.001)


def event(kind: str, job_id: str, id: int | None = None, **data: Any) -> str:
    name = f"id: {id}\n" if id else ""
    return f"{name}event: {kind}\ndata: {json.dumps({'job_id': job_id, **data})}\n\n"


class Streams:
    """Answers each request with the next of these: a body in pieces that may break off, or a status."""

    def __init__(self, *answers: list[str | Exception] | int) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.url.params["jobs"], request.headers.get("last-event-id")))
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            return httpx.Response(answer, headers={"Retry-After": "0"}, json={"code": "overloaded", "trace_id": "t"})

        def body() -> Iterator[bytes]:
            for piece in answer:
                if isinstance(piece, Exception):
                    raise piece
                yield piece.encode()

        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=body())

    def events(self, *job_ids: str) -> list[tuple[str, str]]:
        with httpx.Client(transport=httpx.MockTransport(self)) as http:
            found = Client("http://test", retries=QUICK, http=http).events(*job_ids)
            return [(one.kind, one.data.get("variant") or one.data["status"]) for one in found]


async def test_from_the_receipt_to_the_end(start: Starter) -> None:
    async with start() as s:
        token = s.bearer("alice")["Authorization"].removeprefix("Bearer ")
        client = AsyncClient("http://localhost", token, http=s.http)
        receipt = await client.upload(make.jpeg(64, 48), bucket="b")
        found = [one async for one in client.events(receipt.job_id.upper(), UNKNOWN)]
        mine = [one for one in found if one.job_id == receipt.job_id]
        assert {one.data["variant"] for one in mine if one.kind == "ready"} == {
            "thumbnail",
            "medium",
            "large",
            "original",
        }
        assert (mine[-1].kind, mine[-1].data["status"]) == ("end", "completed")
        assert [(one.kind, one.data["status"]) for one in found if one.job_id == UNKNOWN] == [("end", "not_found")]
        with pytest.raises(Refused) as refused:
            [one async for one in client.events("nonsense")]
        assert (refused.value.status, refused.value.code) == (422, "validation_error")
        assert refused.value.reason and "no job ID" in refused.value.reason


def test_a_stream_that_breaks_off_goes_on_after_the_last_event() -> None:
    half = event("status", SECOND, 9, status="completed")[:30]
    server = Streams(
        [": \n\n", event("ready", FIRST, variant="thumbnail"), event("end", FIRST, 7, status="completed"), half],
        [httpx.ReadError("reset")],
        503,
        [": \n\n", event("status", SECOND, status="completed"), event("end", SECOND, 9, status="completed")],
    )
    wanted = [("ready", "thumbnail"), ("end", "completed"), ("status", "completed"), ("end", "completed")]
    assert server.events(FIRST, SECOND) == wanted
    assert server.asked == [(f"{FIRST},{SECOND}", None), *[(SECOND, "7")] * 3]


def test_attempts_without_an_event_end() -> None:
    attempts: list[tuple[list[Any], type[Exception]]] = [
        ([[": \n\n"]] * 4, ConnectionFailed),
        ([503] * 4, Refused),
        ([422], Refused),
    ]
    for answers, error in attempts:
        server = Streams(*answers)
        with pytest.raises(error):
            server.events(FIRST)
        assert not server.answers
    patient: list[Any] = [[event("status", FIRST, id, status="pending")] for id in range(1, 9)]
    assert len(Streams(*patient, [event("end", FIRST, 9, status="failed")]).events(FIRST)) == 9
