"""The two addresses of render machines, attacked through a real socket: what is refused, and that nothing stays."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import pytest_asyncio

from fixtures import make
from imgsvc import testing
from imgsvc.access.render_tokens import RenderTokens
from imgsvc.jobs.cluster.lane import TicketOffice
from imgsvc.jobs.cluster.open_tickets import IncomingVariants, OpenTicket
from imgsvc.jobs.cluster.ticket import MAX_ANSWER
from imgsvc.jobs.rendered_files import checked_file
from tests.conftest import Service, Starter, service
from tests.support.listening import listening
from tests.support.speed import seconds

JOB, RUN = "a3a1f6c2-54a1-4d5c-9a39-0d8a8a0b8f10", 3
BYTES, MOST = b"the bytes of a variant", 100_000
DASK = {"engine": "dask", "scheduler": "tcp://127.0.0.1:9", "insecure": True}  # nothing listens at the discard port
STALLS = {"idle_timeout_seconds": 0.3}

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Machine:
    """A client that has the token of one run, whose variants come into `folder`."""

    def __init__(self, one: Service, url: str, http: httpx.AsyncClient, folder: Path) -> None:
        self.service, self.url, self.http, self.folder = one, url, http, folder
        self.copies = folder / "received"
        office = one.state.jobs.office
        assert office is not None
        self.office: TicketOffice = office
        self.token = self.issue()
        self.answers: list[str] = []

    def issue(self, job: str = JOB, run: int = RUN, lasting: float = 60) -> str:
        return self.office.tokens.issue(job, run, lasting, {"small": MOST, "large": MOST})

    @contextmanager
    def run(self) -> Iterator[OpenTicket]:
        self.folder.mkdir(exist_ok=True)
        source = self.folder.parent / "source"
        size = source.write_bytes(make.jpeg(640, 480))
        ticket = OpenTicket(source, size, self.copies, {"small": MOST, "large": MOST}, on_answer=self.answers.append)
        with self.office.tickets.opened(self.token, ticket):
            yield ticket

    async def put(self, name: str = "small", body: Any = BYTES, token: str = "", **options: Any) -> httpx.Response:
        return await self.http.put(f"/api/v1/render/{token or self.token}/{name}", content=body, **options)

    async def get(self, token: str = "") -> httpx.Response:
        return await self.http.get(f"/api/v1/render/{token or self.token}/source")

    async def begun(self, name: str, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A PUT of which the head and one byte are sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.rpartition(":")[2]))
        head = f"PUT /api/v1/render/{self.token}/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        writer.write(head.encode() + b"x")
        await writer.drain()
        return reader, writer

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []

    def put_bytes(self, name: str) -> bytes:
        return checked_file(self.copies, name).read_bytes()


@asynccontextmanager
async def machine_of(folder: Path, **sections: dict[str, Any]) -> AsyncIterator[Machine]:
    async with (
        service(folder / "data", workers=DASK, **sections) as one,
        listening(one.app) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        yield Machine(one, url, http, folder / "run")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Machine]:
    """A service with the engine starts a gateway process and thousands of lanes: one for all tests."""
    async with testing._in_one_task(machine_of(tmp_path_factory.mktemp("shared"), uploads=STALLS)) as one:
        yield one


@pytest.fixture
def machine(shared: Machine, tmp_path: Path) -> Machine:
    return Machine(shared.service, shared.url, shared.http, tmp_path / "run")


async def status_of(reader: asyncio.StreamReader) -> int:
    with anyio.fail_after(seconds(10)):
        return int((await reader.readline()).split()[1])


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


async def test_source_is_sent_and_a_variant_is_taken_once(machine: Machine) -> None:
    tickets = machine.office.tickets
    sent, received = tickets.sent_bytes, tickets.received_bytes
    with machine.run() as ticket:
        got = await machine.get()
        assert (got.status_code, got.content) == (200, make.jpeg(640, 480))
        assert got.headers["Cache-Control"] == "private, no-store"
        assert (await machine.put()).status_code == 204
        assert (ticket.received, machine.files()) == ({"small"}, ["received.small.webp"])
        assert machine.put_bytes("small") == BYTES
        assert code(await machine.put(body=b"others")) == (409, "variant_there")
        assert machine.put_bytes("small") == BYTES
        assert (tickets.sent_bytes - sent, tickets.received_bytes - received) == (len(got.content), 22)


async def test_source_of_several_pieces_arrives_whole(machine: Machine) -> None:
    data = bytes(range(256)) * 4096 * 3
    with machine.run() as ticket:
        ticket.size = ticket.source.write_bytes(data)
        assert (await machine.get()).content == data


async def test_each_token_that_is_not_the_runs_is_refused(machine: Machine) -> None:
    text, _, signature = machine.token.partition(".")
    tokens = {
        "another job": machine.issue(job="b" + JOB[1:]),
        "another run": machine.issue(run=RUN - 1),
        "another ticket of the run": machine.issue(lasting=61),
        "spent deadline": machine.issue(lasting=-1),
        "another service's": RenderTokens().issue(JOB, RUN, 60, {"small": MOST}),
        "changed text": f"{text[:-2]}AA.{signature}",
        "no signature": text,
        "something else": "token",
        "no base64": "*.*",
        "not ASCII": "é.é",
    }
    with machine.run():
        for name, token in tokens.items():
            assert code(await machine.get(token)) == (403, "render_refused"), name
            assert code(await machine.put(token=token)) == (403, "render_refused"), name
        assert machine.files() == []


async def test_run_that_is_over_is_refused_before_a_byte_is_read(machine: Machine) -> None:
    with machine.run():
        pass
    reader, writer = await machine.begun("small", MOST)
    assert await status_of(reader) == 403
    writer.close()
    assert code(await machine.get()) == (403, "render_refused")


@pytest.mark.parametrize("name", ["other", "..%2f..%2fjwt_secret", "small.webp", "source"])
async def test_variant_that_the_run_does_not_make_is_refused(machine: Machine, name: str) -> None:
    with machine.run():
        assert code(await machine.put(name))[0] in (403, 404)
        assert machine.files() == []


async def test_lengths(machine: Machine) -> None:
    async def unannounced() -> AsyncIterator[bytes]:
        yield BYTES

    with machine.run() as ticket:
        assert code(await machine.put(body=bytes(MOST + 1))) == (413, "variant_too_large")
        assert code(await machine.put(body=unannounced())) == (411, "length_required")
        machine.service.state.telemetry.disk.disk_full = True
        assert code(await machine.put()) == (507, "storage_full")
        machine.service.state.telemetry.disk.disk_full = False
        assert (ticket.received, machine.files()) == (set(), [])
        assert (await machine.put(body=bytes(MOST))).status_code == 204


async def test_several_variants_in_one_body_are_taken_together_or_not_at_all(machine: Machine) -> None:
    async def together(query: str, body: bytes = b"aaabbbb") -> tuple[int, str]:
        response = await machine.http.put(f"/api/v1/render/{machine.token}?{query}", content=body)
        return response.status_code, response.json()["code"] if response.content else ""

    refused = {
        "small=3&huge=4": (403, "render_refused"),
        "small=3&large=3": (400, "bad_request"),
        "small=3&small=4": (400, "bad_request"),
        "small=3&large=+4": (400, "bad_request"),
        "": (400, "bad_request"),
        f"small={MOST + 1}&large=4": (413, "variant_too_large"),
    }
    received = machine.office.tickets.received_bytes
    with machine.run() as ticket:
        for query, expected in refused.items():
            assert await together(query) == expected, query
        assert (ticket.received, machine.files()) == (set(), [])
        assert await together("small=3&large=4") == (204, "")
        assert [machine.put_bytes(name) for name in ("small", "large")] == [b"aaa", b"bbbb"]
        assert machine.files() == ["received.large.webp", "received.small.webp"]
        assert ticket.received == {"small", "large"}
        assert await together("small=3&large=4") == (409, "variant_there")
        assert machine.office.tickets.received_bytes - received == 7


async def test_answer_comes_with_the_last_variants(machine: Machine) -> None:
    """After them in the body, in one piece or several; it counts for no variant, and is no file."""
    tickets, whole = machine.office.tickets, "é" * (MAX_ANSWER // 2)
    received = tickets.received_bytes

    async def put(query: str, body: bytes) -> tuple[int, str]:
        response = await machine.http.put(f"/api/v1/render/{machine.token}?{query}", content=body)
        return response.status_code, response.json()["code"] if response.content else ""

    with machine.run() as ticket:
        for query, body in {
            "_answer=2": b"{}",
            "_answer=2&small=3": b"aaa",
            "small=3&_answer=+2": b"aaa{}",
            f"small=3&_answer={MAX_ANSWER + 1}": b"aaa" + bytes(MAX_ANSWER + 1),
        }.items():
            assert await put(query, body) == (400, "bad_request"), query
        assert (ticket.received, machine.files(), machine.answers) == (set(), [], [])
        assert await put("small=3", b"aaa") == (204, "")
        body = bytes(MOST) + whole.encode()
        assert await put(f"_answer={MAX_ANSWER}&large={MOST}", body) == (204, "")
        assert (machine.answers, machine.files()) == ([whole], ["received.large.webp", "received.small.webp"])
        assert machine.put_bytes("large") == bytes(MOST)
    assert tickets.received_bytes - received == 3 + MOST


async def test_answer_that_is_no_text_is_passed_on_as_one_that_nobody_has_sent(machine: Machine) -> None:
    with machine.run():
        url = f"/api/v1/render/{machine.token}?small=3&_answer=2"
        assert (await machine.http.put(url, content=b"aaa\xff\xfe")).status_code == 204
    assert machine.answers == ["\ufffd\ufffd"]


async def test_several_variants_that_are_longer_than_a_piece(machine: Machine) -> None:
    largest = {"small": 3 << 20, "large": 3 << 20}
    machine.token = machine.office.tokens.issue(JOB, RUN, 60, largest)
    machine.folder.mkdir()
    ticket = OpenTicket(machine.folder / "none", 0, machine.copies, largest)
    first, second = bytes(range(256)) * 6_001, bytes(reversed(range(256))) * 9_001
    with machine.office.tickets.opened(machine.token, ticket):
        address = f"/api/v1/render/{machine.token}"
        sizes = {"small": len(first), "large": len(second)}
        assert (await machine.http.put(address, params=sizes, content=first + second)).status_code == 204
        assert machine.put_bytes("small") == first
        assert machine.put_bytes("large") == second


async def test_body_that_is_cut_off_leaves_nothing_and_may_be_sent_again(machine: Machine) -> None:
    with machine.run() as ticket:
        _, writer = await machine.begun("small", MOST)
        with anyio.fail_after(seconds(10)):
            while not ticket_is_busy(ticket):
                await anyio.sleep(0.01)
            writer.transport.abort()
            while ticket_is_busy(ticket):
                await anyio.sleep(0.01)
        assert machine.files() == []
        assert (await machine.put()).status_code == 204


def ticket_is_busy(ticket: OpenTicket) -> bool:
    try:
        ticket.check("small")
    except Exception:
        return "small" not in ticket.received
    return False


async def test_two_puts_of_a_variant_at_once(machine: Machine) -> None:
    with machine.run() as ticket:
        reader, writer = await machine.begun("small", 10)
        with anyio.fail_after(seconds(10)):
            while not ticket_is_busy(ticket):
                await anyio.sleep(0.01)
        assert code(await machine.put(body=b"second...!")) == (409, "variant_there")
        writer.write(b"irst.....")
        assert await status_of(reader) == 204
        writer.close()
        assert machine.put_bytes("small") == b"xirst....."


async def test_ten_that_stall_are_given_up_and_leave_nothing(machine: Machine) -> None:
    largest = {f"v{n}": MOST for n in range(10)}
    machine.token = machine.office.tokens.issue(JOB, RUN, 60, largest)
    machine.folder.mkdir()
    ticket = OpenTicket(machine.folder / "none", 0, machine.copies, largest)
    with machine.office.tickets.opened(machine.token, ticket):
        begun = [await machine.begun(name, MOST) for name in largest]
        assert [await status_of(reader) for reader, _ in begun] == [408] * 10
        for _, writer in begun:
            writer.close()
        assert (ticket.received, machine.files()) == (set(), [])


async def test_put_ends_with_its_run_and_leaves_nothing(tmp_path: Path) -> None:
    """As when the image is deleted: the run is closed before its folder is removed."""
    async with machine_of(tmp_path) as machine:
        with machine.run() as ticket:
            reader, writer = await machine.begun("small", MOST)
            with anyio.fail_after(seconds(10)):
                while not ticket_is_busy(ticket):
                    await anyio.sleep(0.01)
        assert await status_of(reader) == 403
        writer.close()
        assert (ticket.received, machine.files()) == (set(), [])


async def test_put_whose_last_write_ends_after_its_run_leaves_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk held it up, and what the run has left is removed already."""
    usual, written, over = IncomingVariants.finish, threading.Event(), threading.Event()

    def held_up(self: IncomingVariants, data: bytes, offset: int) -> None:
        usual(self, data, offset)
        written.set()
        assert over.wait(seconds(20))

    monkeypatch.setattr(IncomingVariants, "finish", held_up)
    with machine.run() as ticket:
        putting = asyncio.ensure_future(machine.put())
        assert await asyncio.to_thread(written.wait, seconds(20))
        assert machine.files() == ["received.small.webp"]
    over.set()
    assert code(await putting) == (403, "render_refused")
    assert (ticket.received, machine.files()) == (set(), [])


async def test_variant_has_the_mode_of_any_new_file(machine: Machine) -> None:
    """It may become the stored file, which others may read where the umask lets them."""
    with machine.run():
        assert (await machine.put()).status_code == 204
        (machine.folder / "new").touch()
        assert checked_file(machine.copies, "small").stat().st_mode == (machine.folder / "new").stat().st_mode


async def test_folder_that_is_gone_is_a_run_that_is_over(machine: Machine) -> None:
    with machine.run():
        machine.folder.rmdir()
        assert code(await machine.put()) == (403, "render_refused")


async def test_source_that_is_gone_is_refused(machine: Machine) -> None:
    with machine.run() as ticket:
        ticket.source.unlink()
        assert code(await machine.get()) == (403, "render_refused")


async def test_tokens_are_in_no_log_and_no_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with machine_of(tmp_path) as machine:  # its log begins where `capfd` sees it
        with machine.run():
            bodies = [(await machine.get()).text, (await machine.put("other")).text, (await machine.get("x.y")).text]
    said = capfd.readouterr()
    assert machine.token not in "".join((*bodies, said.out, said.err))


async def test_addresses_are_there_only_with_the_engine(start: Starter) -> None:
    async with start() as s:
        assert s.state.jobs.office is None
        token = RenderTokens().issue(JOB, RUN, 60, {"small": MOST})
        assert (await s.http.get(f"/api/v1/render/{token}/source")).status_code == 404
        assert (await s.http.put(f"/api/v1/render/{token}/small", content=b"")).status_code == 404
    async with start(workers=DASK) as s:
        document = (await s.http.get("/openapi.json")).text
        assert "/render/" not in document
