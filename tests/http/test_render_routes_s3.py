"""Render machines that put variants into the storage by themselves: addresses, what is late, and what is left."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from fixtures import make
from imgsvc import testing
from imgsvc.jobs.cluster.open_tickets import NotPut, OpenTicket
from imgsvc.jobs.cluster.performer import Performer
from imgsvc.jobs.cluster.ticket import RenderTicket
from imgsvc.jobs.lanes.messages import VariantMade
from imgsvc.storage.base import Differs
from tests.http.test_render_routes import BYTES, JOB, MOST, RUN, Machine, code, machine_of
from tests.support.s3 import S3Server

LENGTH = len(BYTES)
NAME = f"{JOB}.{RUN}"

pytestmark = pytest.mark.asyncio(loop_scope="module")


class StorageMachine(Machine):
    """A machine whose variants are for S3."""

    @contextmanager
    def run(self) -> Iterator[OpenTicket]:
        self.folder.mkdir(exist_ok=True)
        self.office.incoming.begin(NAME, "s3")
        ticket = OpenTicket(
            self.folder / "source", 0, self.copies, {"small": MOST, "large": MOST}, self.office.incoming.of(NAME)
        )
        with self.office.tickets.opened(self.token, ticket):
            yield ticket

    async def ask(self, size: Any = LENGTH, name: str = "small", token: str = "") -> httpx.Response:
        return await self.http.post(f"/api/v1/render/{token or self.token}/{name}", params={"bytes": size})

    async def put_there(self, asked: httpx.Response, body: bytes = BYTES) -> int:
        where = asked.json()
        async with httpx.AsyncClient() as http:
            return (await http.put(where["address"], content=body, headers=where["headers"])).status_code


def made(size: int = LENGTH, name: str = "small") -> VariantMade:
    shown = {"width": 1, "height": 1, "frames": 1}
    return VariantMade(name=name, size_bytes=size, sha256="0" * 64, format="webp", seconds=0, **shown)


def ticket_of(machine: Machine) -> RenderTicket:
    return RenderTicket(
        id="1",
        kind="render",
        address=f"{machine.url}/api/v1/render/{machine.token}",
        trace_id="trace",
        mime="image/jpeg",
        recipe="",
        done=(),
        size=1,
        sha256="",
        time_limit=1,
        memory_ceiling=1,
        file_ceiling=1,
        into_storage=True,
    )


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    return s3.bucket()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory, s3: S3Server, bucket: str) -> AsyncIterator[Machine]:
    place = machine_of(tmp_path_factory.mktemp("shared"), storage={"backend": "s3"}, s3=s3.settings(bucket))
    async with testing._in_one_task(place) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def machine(shared: Machine, tmp_path: Path) -> AsyncIterator[StorageMachine]:
    one = StorageMachine(shared.service, shared.url, shared.http, tmp_path / "run")
    yield one
    await one.office.incoming.end(NAME)


@asynccontextmanager
async def as_job_of_the_run(machine: Machine) -> AsyncIterator[None]:
    """Let a completed image be the one whose run puts variants into the storage."""
    job_id = (await machine.service.completed(make.tiny()))["job_id"]
    rename = "UPDATE processing_jobs SET job_id = ? WHERE job_id = ?"
    await machine.service.sql(rename, JOB, job_id)
    yield
    await machine.service.sql(rename, job_id, JOB)


async def test_variant_is_put_into_the_storage_and_read_again(machine: StorageMachine) -> None:
    with machine.run() as ticket:
        with pytest.raises(NotPut):
            await ticket.take(made())
        asked = await machine.ask()
        assert asked.headers["Cache-Control"] == "private, no-store"
        assert await machine.put_there(asked) == 200
        for lie in (made(MOST + 1), made(name="large")):
            with pytest.raises(NotPut):
                await ticket.take(lie)
        with pytest.raises(Differs):
            await ticket.take(made(5))
        await ticket.take(made())
        assert machine.put_bytes("small") == BYTES


async def test_each_question_that_is_not_the_runs_is_refused(machine: StorageMachine) -> None:
    with machine.run():
        for token in (machine.issue(run=RUN - 1), machine.issue(lasting=-1), "token"):
            assert code(await machine.ask(token=token)) == (403, "render_refused")
        assert code(await machine.ask(name="other")) == (403, "render_refused")
        assert code(await machine.ask(MOST + 1)) == (413, "variant_too_large")
        for size in ("", "-1", "1e3", "²", "9" * 5000):
            assert code(await machine.ask(size)) == (400, "bad_request"), size[:9]
        assert (await machine.put()).status_code == 204
        assert code(await machine.ask()) == (409, "variant_there")
    assert code(await machine.ask()) == (403, "render_refused")


async def test_what_is_late_overwrites_nothing_is_never_served_and_is_removed(
    machine: StorageMachine, s3: S3Server, bucket: str
) -> None:
    await machine.service.completed(make.tiny())
    stored = s3.keys(bucket)
    with machine.run():
        asked = await machine.ask()
    await machine.office.incoming.end(NAME)
    assert await machine.put_there(asked) == 200  # the storage knows nothing of runs
    assert set(s3.keys(bucket)) - set(stored) == {f"incoming/{NAME}/small"}
    for path in (f"incoming/{NAME}/small", f"incoming/{NAME}/small.webp", f"b/incoming/{NAME}/small"):
        got = await machine.http.get(f"/storage/{path}", headers={"X-Forwarded-For": "::1"})
        assert got.status_code == 404 and "X-Accel-Redirect" not in got.headers
    foreign = machine.service.state.jobs.housekeeping
    await foreign.sweep()
    assert f"incoming/{NAME}/small" in s3.keys(bucket)  # no job of ours: another service may share the bucket
    async with as_job_of_the_run(machine):
        stored = [key for key in s3.keys(bucket) if not key.startswith("incoming/")]
        await foreign.sweep()
        assert s3.keys(bucket) == stored


async def test_what_a_run_under_way_has_put_stays(machine: StorageMachine, s3: S3Server, bucket: str) -> None:
    async with as_job_of_the_run(machine):
        with machine.run() as ticket:
            assert await machine.put_there(await machine.ask()) == 200
            await machine.service.state.jobs.housekeeping.sweep()
            await ticket.take(made())
            await machine.office.incoming.end(NAME)
    assert f"incoming/{NAME}/small" not in s3.keys(bucket)


async def test_machine_that_can_t_reach_the_storage_puts_here(tmp_path: Path) -> None:
    """It asks once in a while whether it can again: an address is signed without the storage."""
    (tmp_path / "made").write_bytes(BYTES)
    with S3Server(tmp_path / "s3") as away:
        section = away.settings(away.bucket())
        async with machine_of(tmp_path, storage={"backend": "s3"}, s3=section) as plain:
            machine = StorageMachine(plain.service, plain.url, plain.http, plain.folder)
            performer = Performer([], machine.http, tmp_path)
            away.kill()
            with machine.run() as ticket:
                await performer._put_all(ticket_of(machine), {"small": tmp_path / "made"})
                assert (ticket.received, machine.files()) == ({"small"}, ["received.small.webp"])
                assert machine.office.incoming.of(NAME).addressed == {"small"}  # type: ignore[union-attr]
                await performer._put_all(ticket_of(machine), {"large": tmp_path / "made"})
                assert ticket.received == {"small", "large"}
                assert machine.office.incoming.of(NAME).addressed == {"small"}  # type: ignore[union-attr]
            away.start()
            await machine.office.incoming.end(NAME)


async def test_machine_of_a_run_with_local_files_is_told_nothing(machine: StorageMachine) -> None:
    machine.folder.mkdir()
    ticket = OpenTicket(machine.folder / "source", 0, machine.copies, {"small": MOST})
    with machine.office.tickets.opened(machine.token, ticket):
        assert code(await machine.ask()) == (403, "render_refused")
