"""Upload tickets: what they let in, what they don't, and that each upload is spent exactly once."""

import asyncio
import uuid
from collections import Counter
from datetime import timedelta
from typing import Any

import httpx
import pytest

from fixtures import make
from imgsvc.jobs.revocations import Revocations
from imgsvc.jobs.table.credentials import Credentials
from imgsvc.jobs.table.model import as_text, now
from tests.conftest import Service, Starter

IMAGES, KEYS = "/api/v1/images", "/api/v1/operator/keys"
TINY = make.tiny()


async def issued(s: Service, headers: dict[str, str] | None = None, **wanted: Any) -> dict[str, Any]:
    sent = s.bearer() if headers is None else headers
    response = await s.http.post(f"{IMAGES}/tickets", json={"bucket": "photos", **wanted}, headers=sent)
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


async def by_form(
    s: Service, ticket: dict[str, Any], data: bytes = TINY, fields: dict[str, str] | None = None, key: str = ""
) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    files = {"file": ("photo.jpg", data, "image/jpeg")}
    return await s.http.post(ticket["upload_url"], data=fields or {}, files=files, headers=headers)


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


async def test_browser_uploads_with_the_address_alone(start: Starter) -> None:
    async with start() as s:
        ticket = await issued(s, metadata={"album": 7}, expires_after=3600)
        assert ticket["upload_url"] == f"{IMAGES}/tickets/{ticket['ticket']}"
        assert as_text(now() + timedelta(seconds=500)) < ticket["expires_at"] < as_text(now() + timedelta(seconds=700))
        fields = {"metadata": '{"album": 8, "title": "x"}', "expires_in": "60"}
        job = await s.ended(await by_form(s, ticket, fields=fields))
        (row,) = await s.sql("SELECT user_id, org_id, storage_bucket, original_filename FROM processing_jobs")
        assert row == ("alice", "default-org", "photos", "photo.jpg")
        everything = (await s.http.get(f"{IMAGES}/{job['image_id']}/all")).json()
        assert everything["client_metadata"] == {"album": 7, "title": "x"}
        (one,) = (await s.http.get(IMAGES, headers=s.bearer())).json()["images"]
        assert one["expires_at"] > as_text(now() + timedelta(seconds=3000))
        assert refusal(await by_form(s, ticket)) == (401, "ticket_spent")


async def test_several_uploads_and_raw_bodies(start: Starter) -> None:
    async with start() as s:
        ticket = await issued(s, uploads=2)
        headers = {"Content-Type": "image/jpeg"}
        raw = await s.http.post(ticket["upload_url"], content=TINY, headers=headers)
        assert raw.status_code == 202
        assert (await by_form(s, ticket, fields={"bucket": "photos"})).status_code == 202
        assert refusal(await by_form(s, ticket)) == (401, "ticket_spent")


async def test_refused_upload_spends_nothing(start: Starter) -> None:
    async with start(uploads={"max_size_mb": 1}) as s:
        ticket = await issued(s, max_bytes=len(TINY), allowed_types=["image/jpeg"])
        cases: list[tuple[bytes, dict[str, str], tuple[int, str]]] = [
            (make.jpeg(640, 480), {}, (413, "upload_too_large")),
            (b"words", {}, (415, "unsupported_type")),
            (TINY[:200], {}, (422, "image_unreadable")),
            (TINY, {"bucket": "other"}, (403, "bucket_not_allowed")),
            (TINY, {"metadata": "[]"}, (422, "validation_error")),
        ]
        for data, fields, expected in cases:
            assert refusal(await by_form(s, ticket, data, fields)) == expected
        assert await s.sql("SELECT uploads_left FROM upload_tickets") == [(1,)]
        assert (await by_form(s, ticket)).status_code == 202


async def test_one_ticket_and_many_uploads_at_once(start: Starter) -> None:
    async with start() as s:
        ticket = await issued(s, uploads=3)
        answers = await asyncio.gather(*(by_form(s, ticket, make.jpeg(64, 40 + number)) for number in range(20)))
        assert Counter(answer.status_code for answer in answers) == {202: 3, 401: 17}
        assert await s.sql("SELECT count(*) FROM processing_jobs") == [(3,)]


async def test_ticket_ends(start: Starter) -> None:
    async with start() as s:
        ticket, begun = await issued(s), await issued(s)
        over = as_text(now() - timedelta(seconds=1))

        async def body() -> Any:
            yield TINY[:100]
            await s.sql("UPDATE upload_tickets SET expires_at = ?", over)  # both end meanwhile
            yield TINY[100:]

        late = await s.http.post(begun["upload_url"], content=body(), headers={"Content-Type": "image/jpeg"})
        assert late.status_code == 202  # what began before its end may end after it
        assert refusal(await by_form(s, ticket)) == (401, "ticket_expired")
        await s.state.jobs.housekeeping.sweep()
        assert await s.sql("SELECT count(*) FROM upload_tickets") == [(2,)]
        await s.sql("UPDATE upload_tickets SET expires_at = ?", as_text(now() - timedelta(days=1, seconds=1)))
        await s.state.jobs.housekeeping.sweep()
        assert await s.sql("SELECT count(*) FROM upload_tickets") == [(0,)]
        assert refusal(await by_form(s, ticket)) == (401, "token_invalid")


async def test_repeated_upload_gets_its_answer_though_the_ticket_is_spent_or_over(start: Starter) -> None:
    async with start() as s:
        ticket, other = await issued(s), await issued(s)
        first = await by_form(s, ticket, key="k")
        again = await by_form(s, ticket, key="k")
        assert again.status_code == 202 and again.json() == first.json()
        assert again.headers["Idempotency-Replayed"] == "true"
        await s.sql("UPDATE upload_tickets SET expires_at = ?", as_text(now() - timedelta(seconds=1)))
        assert (await by_form(s, ticket, key="k")).json() == first.json()
        assert refusal(await by_form(s, ticket, make.jpeg(64, 50), key="k")) == (422, "idempotency_conflict")
        assert refusal(await by_form(s, ticket, key="l")) == (401, "ticket_expired")
        await s.sql("UPDATE upload_tickets SET expires_at = ?", as_text(now() + timedelta(seconds=60)))
        own = await by_form(s, other, key="k")  # another ticket's keys are its own
        assert own.json()["job_id"] != first.json()["job_id"]
        jwt = await s.upload(TINY)
        assert jwt.json()["job_id"] not in (first.json()["job_id"], own.json()["job_id"])


async def test_limits_are_those_of_the_issuer_then(start: Starter) -> None:
    async with start(auth={"permissions": "claims"}) as s:
        narrow = {"max_bytes": len(TINY), "buckets": ["photos"]}
        headers = s.bearer(permissions=["image:upload"], imgsvc=narrow)
        wide = await issued(s, headers, max_bytes=10_000_000)
        assert refusal(await by_form(s, wide, make.jpeg(640, 480))) == (413, "upload_too_large")
        asked = await s.http.post(f"{IMAGES}/tickets", json={"bucket": "other"}, headers=headers)
        assert refusal(asked) == (403, "bucket_not_allowed")
        reader = s.bearer(permissions=["image:read"])
        assert refusal(await s.http.post(f"{IMAGES}/tickets", json={"bucket": "b"}, headers=reader)) == (
            403,
            "permission_denied",
        )
        assert (await s.http.post(f"{IMAGES}/tickets", json={"bucket": "b"})).status_code == 401


async def test_ticket_of_a_revoked_key_is_none(start: Starter) -> None:
    async with start() as s:
        key = (await s.http.post(KEYS, json={"name": "n", "sub": "s"}, headers=s.operator)).json()
        ticket = await issued(s, {"Authorization": f"Bearer {key['key']}"})
        begun = await issued(s, {"Authorization": f"Bearer {key['key']}"})

        async def body() -> Any:
            yield TINY[:100]
            await s.http.delete(f"{KEYS}/{key['key_id']}", headers=s.operator)
            yield TINY[100:]

        late = await s.http.post(begun["upload_url"], content=body(), headers={"Content-Type": "image/jpeg"})
        assert refusal(late) == (401, "token_invalid")
        assert refusal(await by_form(s, ticket)) == (401, "token_invalid")
        assert await s.sql("SELECT count(*) FROM processing_jobs") == [(0,)]


@pytest.mark.parametrize("private", [False, True])
async def test_ticket_reads_its_own_job_and_nothing_else(start: Starter, private: bool) -> None:
    async with start(storage={"signed_urls": private}) as s:
        ticket, other = await issued(s), await issued(s)
        job = await s.ended(await by_form(s, ticket))
        status, expected = f"{IMAGES}/jobs/{job['job_id']}", 404 if private else 200
        mine = {"Authorization": f"Bearer {ticket['ticket']}"}
        theirs = {"Authorization": f"Bearer {other['ticket']}"}
        assert (await s.http.get(status, headers=mine)).json()["urls"] != {}
        assert ((await s.http.get(status, headers=theirs)).json()["urls"] == {}) == private
        for headers, hidden in ((mine, False), (theirs, private)):
            news = await s.http.get(f"{status}/events", headers=headers)
            assert "event: end" in news.text and ('"url":null' in news.text) == hidden
        result = await s.http.get(f"{status}/result", headers=mine)
        assert result.status_code == 200
        assert (await s.http.get(result.json()["urls"]["medium"])).status_code == 200
        assert (await s.http.get(f"{status}/result", headers=theirs)).status_code == expected
        for method, path in (
            ("GET", IMAGES),
            ("GET", "/api/v1/usage"),
            ("DELETE", f"{IMAGES}/{job['image_id']}"),
            ("PATCH", f"{IMAGES}/{job['image_id']}"),
            ("POST", f"{IMAGES}/upload?bucket=b"),
            ("POST", f"{IMAGES}/tickets"),
        ):
            assert refusal(await s.http.request(method, path, headers=mine)) == (401, "token_invalid"), path


async def test_malformed_requests(start: Starter) -> None:
    async with start() as s:
        wrongs: list[dict[str, Any]] = [
            {"bucket": "../x"},
            {"uploads": 0},
            {"uploads": 1001},
            {"uploads": "1"},
            {"max_bytes": 0},
            {"allowed_types": []},
            {"expires_in": 0},
            {"expires_in": 604_801},
            {"expires_after": 59},
            {"metadata": []},
            {"metadata": {"a": "x" * 17_000}},
            {"sub": "bob"},
        ]
        for wrong in wrongs:
            body = {"bucket": "b", **wrong}
            response = await s.http.post(f"{IMAGES}/tickets", json=body, headers=s.bearer())
            assert refusal(response) == (422, "validation_error"), wrong
        assert (await s.http.post(f"{IMAGES}/tickets", json={}, headers=s.bearer())).status_code == 422
        for secret in ("imgt_x", "x", "imgt_" + "a" * 43):
            assert refusal(await s.http.post(f"{IMAGES}/tickets/{secret}", content=b"")) == (401, "token_invalid")


async def test_restore_voids_tickets(start: Starter) -> None:
    """It gives the service a new ID, since it is unknown what was spent after the backup."""
    async with start() as s:
        ticket = await issued(s)
        await s.sql("UPDATE service_instance SET id = ?", str(uuid.uuid4()))
        (new,) = await s.sql("SELECT id FROM service_instance")
        table = s.state.jobs.table
        after = Credentials(table._readers, table._writer, new[0], Revocations(s.settings.data).add_key)
        assert await after.ticket(ticket["ticket"]) is None
        assert await s.state.access.credentials.ticket(ticket["ticket"]) is not None
