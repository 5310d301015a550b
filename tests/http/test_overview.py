"""The overview, as it comes from the service: the card of other machines, and where its figures lead."""

import re
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from fixtures import make
from imgsvc import __version__
from imgsvc.http.dashboard.cluster_card import LISTED
from imgsvc.jobs.cluster.link import GatewayLink
from imgsvc.jobs.cluster.messages import Connected, Machine, Machines
from tests.conftest import WAIT_SECONDS, Service, Starter
from tests.support.speed import within

DASK = {"engine": "dask", "scheduler": "tcp://127.0.0.1:9", "insecure": True}  # nothing listens at the discard port
OURS, OTHER = "0123456789abcdef", "f" * 16
HOSTILE = "<img src=x onerror=alert(1)>"


async def overview(s: Service, address: str = "/dashboard", *, signed_in: bool = True) -> str:
    """The page with fresh data: not of an answer that is shared for a second."""
    s.app.state.snapshot = None
    headers = {"Accept": "text/html", **(s.operator if signed_in else {})}
    answer = await s.http.get(address, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


def card_of(page: str) -> str:
    """The card of other machines; empty if there is none."""
    return page.partition('<section class="card span-12" aria-labelledby="cluster"')[2].partition("</section>")[0]


def machine(name: str, **more: object) -> Machine:
    about = {"version": __version__, "fingerprint": OURS, "cage": "Landlock", "threads": 2, "megabytes": 3072}
    return Machine.model_validate({"name": name, "decoders": {}, "running": True, **about, **more})


def link_of(s: Service) -> GatewayLink:
    assert s.state.jobs.office
    return s.state.jobs.office.link


async def test_other_machines_are_shown_with_why_one_is_not_used(start: Starter) -> None:
    async with start(workers=DASK, operator={"public": True}) as s:
        away = card_of(await overview(s))
        assert "disconnected" in away and "connects again" in away and "<table" not in away
        link = link_of(s)
        link._take(Connected(fingerprint=OURS, cage="Landlock (ABI 6)", missing=""))
        assert "No machine is there." in card_of(await overview(s))
        odd = [
            machine(HOSTILE, version="0.1", fingerprint=OTHER),
            machine("b", fingerprint=OTHER),
            machine("c", running=False),
        ]
        link._take(Machines(machines=(machine("a"), *odd)))
        shown = card_of(await overview(s))
        for words in ("connected", "none: insecure", "Landlock (ABI 6)", "2 on 1 machine", "Tickets out", "3 GB"):
            assert words in shown, words
        assert shown.count("not used<") == 3 and shown.count("Other decoders, or it takes no tickets now.") == 2
        assert f"Another version; the service has {__version__}." in shown
        assert HOSTILE not in shown and shown.index(">b</bdi>") < shown.index(">a</bdi>")
        page = await overview(s, signed_in=False)
        assert card_of(page) == shown  # as in the data, which has it for every reader
        assert "not all machines that render are used" in page
        link._take(Machines(machines=tuple(machine(f"m{place}") for place in range(LISTED + 2))))
        many = card_of(await overview(s))
        assert "and 2 others" in many and many.count('data-label="State"') == LISTED


async def test_without_other_machines_there_is_no_card(start: Starter) -> None:
    async with start() as s:
        assert "Other machines" not in await overview(s)


async def test_keys_and_tickets_are_counted_and_lead_to_their_page(start: Starter) -> None:
    async with start(operator={"public": True}) as s:
        assert "Keys and tickets" not in await overview(s)
        for name in ("a", "b"):
            wanted = {"name": name, "sub": "shop"}
            assert (await s.http.post("/api/v1/operator/keys", json=wanted, headers=s.operator)).status_code == 201
        for _ in range(51):
            await s.http.post("/api/v1/images/tickets", json={"bucket": "b"}, headers=s.bearer())
        await s.http.delete(f"/api/v1/operator/keys/{(await keys(s))[0]}", headers=s.operator)
        page = await overview(s)
        assert '/dashboard/care/keys">1</a>' in page and '/dashboard/care/keys">more than 50</a>' in page
        assert "/dashboard/care/keys" not in await overview(s, signed_in=False)


async def test_open_event_streams_are_shown(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        job_id = (await s.upload(make.tiny())).json()["job_id"]
        assert "Open event streams" not in await overview(s)
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(s.http.get, f"/api/v1/images/jobs/{job_id}/events")
            with within(WAIT_SECONDS):
                while s.state.telling.streams.count < 2:
                    await anyio.lowlevel.checkpoint()
            page = await overview(s)
            data = (await s.http.get("/dashboard/data", headers=s.operator)).json()
            group.cancel_scope.cancel()
        assert ">2 of 500<" in page.partition("Open event streams")[2][:100]
        assert data["event_streams"] == {"open": 2, "limit": 500}


async def test_uploads_by_address_are_shown(start: Starter) -> None:
    async with start() as s:
        assert "Uploads by address" not in await overview(s)
        with s.state.fetches.attempt(("org", "one")), s.state.fetches.attempt(("org", "other")):
            page = await overview(s)
            data = (await s.http.get("/dashboard/data", headers=s.operator)).json()
        assert ">2 of 8<" in page.partition("Uploads by address on their way")[2][:100]
        assert data["fetches"] == {"open": 2, "limit": 8}


async def keys(s: Service) -> list[str]:
    listed = (await s.http.get("/api/v1/operator/keys", headers=s.operator)).json()["keys"]
    return [one["key_id"] for one in listed]


@pytest.mark.parametrize(("span", "back"), [("hour", timedelta(hours=1)), ("week", timedelta(days=7))])
async def test_failures_of_a_time_lead_to_those_jobs(start: Starter, span: str, back: timedelta) -> None:
    whole = make.tiny()
    async with start() as s:
        assert (await s.ended(await s.upload(whole[: len(whole) // 2])))["status"] == "failed"
        await s.sql("UPDATE processing_jobs SET created_at = '2026-01-01T00:00:00.000000+00:00'")  # it failed just now
        page = await overview(s, f"/dashboard?range={span}")
        (found,) = set(
            re.findall(r"/dashboard/jobs\?status=failed&amp;from=([^&]+)&amp;until=([^\"]+)\">1 failed", page)
        )
        begin, end = (datetime.strptime(one, "%Y-%m-%dT%H:%M").replace(tzinfo=UTC) for one in found)
        assert back <= end - begin < back + timedelta(hours=span == "week") + timedelta(minutes=1)
        assert datetime.now(UTC) - end < timedelta(minutes=2)
        listed = await overview(s, f"/dashboard/jobs?status=failed&from={found[0]}&until={found[1]}")
        assert listed.count('data-label="State"') == 1
        assert f'value="{found[0]}" type="datetime-local"' in listed
        before = await overview(s, f"/dashboard/jobs?status=failed&until={found[0]}")
        assert before.count('data-label="State"') == 0
