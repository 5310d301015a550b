"""What a connection has received and not read yet: passed on as it came, within a bound."""

import asyncio
from typing import Any

import pytest

from imgsvc.service.hypercorn_fixes.piece_reader import SMALL, PieceReader
from tests.support.speed import within


class Transport:
    """Counts what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")


def reader_of(transport: Any) -> PieceReader:
    reader = PieceReader(asyncio.get_running_loop())
    reader.set_transport(transport)
    return reader


async def test_large_pieces_are_not_copied_and_small_ones_are_joined() -> None:
    reader, large = reader_of(Transport()), [bytes(SMALL), bytes(50_000)]
    for data in (large[0], b"a", b"", b"b", large[1], b"c"):
        reader.feed_data(data)
    found = [await reader.piece() for _ in range(4)]
    assert found == [large[0], b"ab", large[1], b"c"]
    assert [one for one in found if any(one is data for data in large)] == large
    assert all(type(one) is bytes for one in found)


async def test_single_bytes_take_no_object_each() -> None:
    reader = reader_of(Transport())
    for _ in range(100_000):
        reader.feed_data(b"x")
    assert len(reader._pieces) == 1
    assert await reader.piece() == b"x" * 100_000


async def test_nothing_is_received_while_much_waits() -> None:
    transport = Transport()
    reader = reader_of(transport)
    for _ in range(3):
        reader.feed_data(bytes(30_000))
    assert transport.calls == ["pause"]
    await reader.piece()
    assert transport.calls == ["pause"]
    await reader.piece()
    assert transport.calls == ["pause", "resume"]


async def test_nothing_is_received_while_a_large_piece_is_handled() -> None:
    transport = Transport()
    reader = reader_of(transport)
    reader.feed_data(bytes(256_000))
    await reader.piece()
    assert transport.calls == ["pause"]
    with within(20):
        waiting = asyncio.create_task(reader.piece())
        await asyncio.sleep(0)
        assert transport.calls == ["pause", "resume"]
        reader.feed_data(b"next")
        assert await waiting == b"next"


async def test_reader_waits_for_bytes_and_sees_the_end() -> None:
    reader = reader_of(Transport())
    waiting = asyncio.create_task(reader.piece())
    with within(20):
        await asyncio.sleep(0)
        assert not waiting.done()
        reader.feed_data(b"late")
        assert await waiting == b"late"
        reader.feed_data(b"last")
        reader.feed_eof()
        assert not reader.at_eof()
        assert await reader.piece() == b"last"
        assert reader.at_eof()
        assert await reader.piece() == b""


async def test_lost_connection_is_raised() -> None:
    reader = reader_of(Transport())
    waiting = asyncio.create_task(reader.piece())
    with within(20):
        await asyncio.sleep(0)
        reader.set_exception(ConnectionResetError("gone"))
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                await waiting
            waiting = asyncio.create_task(reader.piece())
        waiting.cancel()
