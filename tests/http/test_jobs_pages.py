"""The jobs for the operator: lists with filters, groups of failures, and the pages that show them."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from fixtures import make
from tests.conftest import Service, Starter, held_service

API = "/api/v1/operator/jobs"
PAGE = "/dashboard/jobs"
WHOLE = make.jpeg(320, 240)
HOSTILE = "<img src=x onerror=alert(1)>.jpg"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def s(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """With three completed jobs of two users, and two that failed."""
    async for one in held_service(tmp_path_factory.mktemp("jobs")):
        for seed, user in enumerate(("alice", "alice", "bob")):
            await one.completed(make.tiny(seed=seed), user=user, bucket=f"team/{user}")
        for _ in range(2):
            files = {"file": (HOSTILE, WHOLE[: len(WHOLE) // 2], "image/jpeg")}
            sent = {"data": {"bucket": "odd"}, "files": files, "headers": one.bearer("<i>eve</i>")}
            failed = await one.ended(await one.http.post("/api/v1/images/upload", **sent))  # type: ignore[arg-type]
            assert failed["error_code"] == "image_unreadable"
        yield one


async def listed(s: Service, **query: str) -> list[str]:
    """The users of the jobs that are found, page by page."""
    users, after = [], {"limit": "2"}
    while True:
        answer = await s.http.get(API, params={**query, **after}, headers=s.operator)
        assert answer.status_code == 200, answer.text
        users += [job["user_id"] for job in answer.json()["jobs"]]
        if answer.json()["next"] is None:
            return users
        after = {"limit": "2", "after": answer.json()["next"]}


async def test_each_filter_finds_its_jobs_page_by_page(s: Service) -> None:
    eve, today = "<i>eve</i>", datetime.now(UTC)
    assert await listed(s) == [eve, eve, "bob", "alice", "alice"]
    assert await listed(s, status="failed") == [eve, eve]
    assert await listed(s, error_code="image_unreadable") == [eve, eve]
    assert await listed(s, error_code="image_unreadable", user=eve, q=HOSTILE.upper()) == [eve, eve]
    assert await listed(s, error_code="timeout") == []
    assert await listed(s, bucket="team/alice") == ["alice", "alice"]
    assert await listed(s, user="bob") == ["bob"]
    assert await listed(s, created_before=(today - timedelta(days=1)).isoformat()) == []
    refused = await s.http.get(API, params={"error_code": "No"}, headers=s.operator)
    assert refused.status_code == 422


async def test_failures_are_grouped_by_their_code(s: Service) -> None:
    (group,) = (await s.http.get("/api/v1/operator/errors", headers=s.operator)).json()["errors"]
    assert (group["code"], group["jobs"], group["names"]) == ("image_unreadable", 2, [HOSTILE, HOSTILE])
    assert group["last_failed_at"] and group["meaning"] and group["advice"]


async def test_page_lists_filters_and_leads_on(s: Service) -> None:
    shown = (await s.http.get(PAGE, headers=s.operator)).text
    assert shown.count("data-label=State") == 0 and shown.count('data-label="State"') == 5
    assert '?status=failed&amp;error_code=image_unreadable" class="count">2 jobs</a>' in shown
    failed = (await s.http.get(f"{PAGE}?status=failed&bucket=", headers=s.operator)).text  # as a form sends it
    assert failed.count('data-label="State"') == 2 and '<option value="failed" selected>' in failed
    today = datetime.now(UTC).date()
    for days, found in (("from", 5), ("until", 5)):
        one = (await s.http.get(f"{PAGE}?{days}={today.isoformat()}", headers=s.operator)).text
        assert one.count('data-label="State"') == found
    earlier = (await s.http.get(f"{PAGE}?until={today - timedelta(days=1)}", headers=s.operator)).text
    assert "No job matches." in earlier
    for wrong in ("from=soon", "after=x", "status=x", "bucket=..", "until=9999-12-31", "from=2026-03-01T25:00"):
        told = await s.http.get(f"{PAGE}?{wrong}", headers=s.operator)
        assert told.status_code == 200 and 'role="alert"' in told.text, wrong


async def test_page_of_a_job_says_what_happened_and_why(s: Service) -> None:
    (job, *_) = (await s.http.get(f"{API}?status=failed", headers=s.operator)).json()["jobs"]
    shown = (await s.http.get(f"{PAGE}/{job['job_id']}", headers=s.operator)).text
    for words in ("Why it failed", "The upload was accepted", "The job failed:", "Trace ID", "&lt;i&gt;eve&lt;/i&gt;"):
        assert words in shown
    assert "<i>" not in shown and "<img src=x" not in shown and "live.js" not in shown
    done = (await s.http.get(f"{API}?status=completed&limit=1", headers=s.operator)).json()["jobs"][0]
    whole = (await s.http.get(f"{PAGE}/{done['job_id']}", headers=s.operator)).text
    assert "All variants were stored." in whole and "Why it failed" not in whole
    assert re.search(r"<dt>Worked on</dt><dd>\d", whole)
    for nothing in ("x", "11111111-1111-4111-8111-111111111111", "%00"):
        gone = await s.http.get(f"{PAGE}/{nothing}", headers={**s.operator, "Accept": "text/html"})
        assert gone.status_code == 404 and "There is no such job" in gone.text


async def test_names_are_not_public(start: Starter) -> None:
    async with start(operator={"public": True}) as s:
        await s.completed(make.tiny())
        (job,) = (await s.http.get(API, headers=s.operator)).json()["jobs"]
        assert job["original_filename"] == "photo.jpg"
        person = {"Accept": "text/html"}
        api = (API, f"{API}/{job['job_id']}", "/api/v1/operator/errors")
        for path in (PAGE, f"{PAGE}/{job['job_id']}", *api):
            refused = await s.http.get(path, headers=person)
            assert refused.status_code == 401 and "photo.jpg" not in refused.text
        page = await s.http.get(PAGE, headers=person)
        assert "Sign in to the dashboard" in page.text
        assert (await s.http.get(PAGE)).json()["code"] == "operator_required"
