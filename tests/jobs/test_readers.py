"""Connections for reading: how many are opened, and who waits for one."""

import os
import resource
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import anyio
import pytest_asyncio

from imgsvc.jobs.table.database import READERS, Readers, open_for_writing


@pytest_asyncio.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "imgsvc.db"
    db = await open_for_writing(path)
    yield path
    await db.close()


def open_files(path: Path) -> int:
    """How often this process has the database open."""
    return sum(link.is_symlink() and link.readlink() == path for link in Path("/proc/self/fd").iterdir())


@contextmanager
def no_further_descriptor() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_reads_one_after_the_other_take_one_connection(path: Path) -> None:
    before = open_files(path)
    async with Readers(path) as readers:
        for _ in range(2 * READERS):
            await readers.fetch("clocks", {})
        assert open_files(path) - before == 1


async def test_a_further_one_is_opened_when_all_are_lent_and_the_next_reader_waits(path: Path) -> None:
    before, lent = open_files(path), anyio.Event()
    async with Readers(path) as readers, anyio.create_task_group() as group:

        async def further() -> None:
            async with readers.lend():
                lent.set()

        async with AsyncExitStack() as first, AsyncExitStack() as others:
            one = await first.enter_async_context(readers.lend())
            connections = [one, *[await others.enter_async_context(readers.lend()) for _ in range(READERS - 1)]]
            assert len(set(map(id, connections))) == READERS == open_files(path) - before
            group.start_soon(further)
            await anyio.wait_all_tasks_blocked()
            assert not lent.is_set()
            await first.aclose()
            await lent.wait()
        assert open_files(path) - before == READERS


async def test_many_at_once_are_all_served_and_open_no_more_than_they_may(path: Path) -> None:
    before, done = open_files(path), 0
    async with Readers(path) as readers:

        async def read() -> None:
            nonlocal done
            await readers.fetch("clocks", {})
            done += 1

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(read)
        assert done == 50 and 1 < open_files(path) - before <= READERS


async def test_where_no_descriptor_is_left_a_reader_waits_for_one_that_is_open(path: Path) -> None:
    read, before = anyio.Event(), set(threading.enumerate())
    async with Readers(path) as readers, anyio.create_task_group() as group:
        await readers.fetch("clocks", {})  # its files are open from now on

        async def reading() -> None:
            await readers.fetch("clocks", {})
            read.set()

        with no_further_descriptor():
            async with readers.lend():
                group.start_soon(reading)
                await anyio.wait_all_tasks_blocked()
                assert not read.is_set()
            await read.wait()
        await readers.fetch("clocks", {})
    for thread in set(threading.enumerate()) - before:  # that of the connection that was not opened ends by itself
        thread.join()
