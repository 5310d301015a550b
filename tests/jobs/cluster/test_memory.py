"""The memory of a cluster's machines: how many tickets are out, and how large they may be."""

from dataclasses import replace

from imgsvc.jobs.cluster.lane import ClusterLane, ClusterMemory, TicketOffice
from imgsvc.jobs.cluster.link import GatewayLink
from imgsvc.jobs.cluster.messages import Connected, Machine, Machines
from imgsvc.jobs.lanes.messages import CagedType
from imgsvc.settings.fields import MEGABYTE
from imgsvc.settings.workers import Workers
from tests.conftest import Starter
from tests.jobs.test_reserved_memory import a_job, with_estimate

OURS = "0123456789abcdef"


def machine(
    name: str,
    megabytes: int = 1000,
    *,
    fingerprint: str = OURS,
    running: bool = True,
    decoders: dict[CagedType, str] | None = None,
) -> Machine:
    return Machine(
        name=name,
        version="1",
        fingerprint=fingerprint,
        cage="",
        threads=2,
        megabytes=megabytes,
        decoders=decoders or {},
        running=running,
    )


def linked(*machines: Machine) -> GatewayLink:
    link = GatewayLink(Workers(scheduler="tcp://127.0.0.1:9", insecure=True))
    link._take(Connected(fingerprint=OURS, cage="", missing=""))
    link._take(Machines(machines=machines))
    return link


def test_machines_of_another_version_and_those_that_leave_count_for_nothing() -> None:
    link = linked(machine("a", 1000), machine("b", 4000, fingerprint="f" * 16), machine("c", 4000, running=False))
    memory = ClusterMemory(link)
    assert (link.places, memory.total, memory.biggest) == (4, 2000 * MEGABYTE, 1000 * MEGABYTE)


def test_types_are_taken_that_every_used_machine_decodes_and_go_on_to_be_while_none_is_there() -> None:
    both: dict[CagedType, str] = {"image/heic": "libheif 1.23.6", "image/avif": "libavif 1.4.2"}
    avif: dict[CagedType, str] = {"image/avif": "libavif 1.4.2"}
    other = machine("c", fingerprint="f" * 16)
    link = linked(machine("a", decoders=both), machine("b", decoders=avif), other)
    assert set(link.decoders) == {"image/avif"}
    link._take(Machines(machines=(machine("a", decoders=both), other)))
    assert link.decoders == both
    link._take(Machines(machines=()))
    assert link.decoders == both and linked().decoders == {}


def test_without_machines_nothing_is_claimed() -> None:
    memory = ClusterMemory(linked())
    assert memory.largest < 0 and not memory.takes_any


def test_as_many_lanes_take_jobs_as_there_are_places() -> None:
    office = TicketOffice(linked(machine("a", 1000)), "http://localhost")
    office.serve_at("http://localhost")
    lanes = [ClusterLane(f"cluster-{n}", n, office) for n in range(8)]
    assert [lane.alive for lane in lanes] == [True] * 4 + [False] * 4
    lanes[0].shut()
    assert not lanes[0].alive


async def test_no_more_is_out_than_twice_the_memory_and_a_job_that_runs_alone_gets_a_machine(start: Starter) -> None:
    job = await a_job(start)
    memory = ClusterMemory(linked(machine("a", 1000), machine("b", 500)))
    large = with_estimate(job, 400 * MEGABYTE)
    reserved = []
    while large.render_bytes <= memory.largest:
        reserved.append(memory.reserve(large, "renders"))
    assert 5 <= len(reserved) <= 6 and sum(reserved) <= memory.total == 3000 * MEGABYTE
    assert not memory.takes_any
    for one in reserved:
        memory.release(one)
    assert memory.takes_any and memory.running == memory.used == 0
    assert memory.reserve(replace(large, deaths=1), "renders") == memory.biggest == 1000 * MEGABYTE


async def test_both_queues_share_the_machines(start: Starter) -> None:
    job = with_estimate(await a_job(start), 400 * MEGABYTE)
    link = linked(machine("a", 1000))
    previews = ClusterMemory(link)
    renders = ClusterMemory(link, lambda: previews.used)
    before = renders.free
    reserved = previews.reserve(replace(job, preview_bytes=100 * MEGABYTE), "previews")
    assert renders.free == before - reserved
