"""The S3 backend on a store that refuses, breaks off, stalls or lies."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from imgsvc.settings.storage import S3
from imgsvc.storage import s3 as module
from imgsvc.storage import s3_client
from imgsvc.storage.base import StorageError
from imgsvc.storage.s3 import CHUNK, S3Storage, s3_storage
from tests.support.s3 import S3Server
from tests.support.s3_proxy import Fault, Proxy
from tests.support.speed import seconds, within
from tests.support.stored import KEY, read, source
from tests.support.tcp_server import serving


@pytest.fixture
async def behind(s3: S3Server, bucket: str, faulty: Proxy) -> AsyncIterator[S3Storage]:
    """The same storage through the proxy; time-outs are short."""
    async with s3_storage(impatient(s3, bucket, faulty)) as one:
        yield one


def impatient(s3: S3Server, bucket: str, faulty: Proxy, attempts: int = 6) -> S3:
    answer = seconds(0.4)
    short = {"connect_timeout_seconds": answer, "read_timeout_seconds": answer, "total_timeout_seconds": 60 * answer}
    return S3(**s3.settings(bucket, **short, attempts=attempts, endpoint_url=faulty.url))


async def test_a_removal_needs_no_right_to_list(
    behind: S3Storage, faulty: Proxy, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    """Without s3:ListBucket the HEAD of what is not there is a 403."""
    await behind.put("a/b", KEY, source(tmp_path, b"x"))
    faulty.fail("403")
    assert await behind.remove("a/b", KEY)
    assert s3.keys(bucket) == []
    faulty.fail("403")
    assert await behind.remove("a/b", KEY)


async def test_a_store_that_can_not_encrypt_names_the_setting(behind: S3Storage, faulty: Proxy, tmp_path: Path) -> None:
    faulty.fail("501")
    with capture_logs() as logged, pytest.raises(StorageError) as raised:
        await behind.put("a/b", KEY, source(tmp_path, b"x"))
    assert raised.value.plain == "The object storage can't encrypt at rest: set [s3] encryption = none."
    assert [(line["event"], line["setting"]) for line in logged] == [("s3_can_not_encrypt", "[s3] encryption = none")]
    assert faulty.connections == 1  # it is not tried again


@pytest.mark.parametrize(("fault", "times"), [("503", 2), ("reset", 2), ("stall", 1)])
async def test_what_passes_is_tried_again(
    behind: S3Storage, faulty: Proxy, fault: Fault, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "FIRST_PAUSE_SECONDS", 0.01)
    data = os.urandom(20_000)
    faulty.fail(fault, times)
    await behind.put("a/b", KEY, source(tmp_path, data))
    faulty.fail(fault, times)
    assert await read(behind, 0, len(data)) == data
    faulty.fail("cut", times)
    await behind.fetch("a/b", KEY, tmp_path / "copy", 0)
    assert (tmp_path / "copy").read_bytes() == data
    faulty.fail(fault, times)
    assert await behind.remove("a/b", KEY)


async def test_what_does_not_pass_is_tried_so_often(
    behind: S3Storage, faulty: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "FIRST_PAUSE_SECONDS", 0.01)
    path = source(tmp_path, b"x")
    faulty.fail("503", 1000)
    with pytest.raises(StorageError) as raised:
        await behind.put("a/b", KEY, path)
    assert raised.value.plain == "The object storage answered with the status 503."
    assert faulty.connections == 6
    with pytest.raises(StorageError):
        await behind.put(".health/x", "probe", path)
    assert faulty.connections == 7


async def test_store_that_stalls_is_left_in_time(
    s3: S3Server, bucket: str, faulty: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "FIRST_PAUSE_SECONDS", 0.01)
    faulty.fail("stall", 1000)
    began = time.monotonic()
    async with s3_storage(impatient(s3, bucket, faulty, attempts=2)) as storage:
        with pytest.raises(StorageError) as raised:
            await storage.fetch("a/b", KEY, tmp_path / "copy", 0)
    assert raised.value.plain == "The object storage does not answer in time."
    assert faulty.connections == 2
    assert time.monotonic() - began < seconds(5)
    assert not (tmp_path / "copy").exists()


async def test_answer_that_breaks_off_is_an_error(behind: S3Storage, faulty: Proxy, tmp_path: Path) -> None:
    data = os.urandom(CHUNK * 3)
    await behind.put("a/b", KEY, source(tmp_path, data))
    faulty.fail("cut", cut_after=CHUNK * 2)
    blob = await behind.read("a/b", KEY, 0, len(data))
    assert blob.first == data[:CHUNK]
    with pytest.raises(StorageError):
        [chunk async for chunk in blob.rest]


async def test_damaged_bytes_are_refused_by_the_store(
    storage: S3Storage, s3: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "_content_md5", lambda source: ("1B2M2Y8AsgTpgAmY7PhCfg==", 3))
    with pytest.raises(StorageError, match="BadDigest"):
        await storage.put("a/b", KEY, source(tmp_path, b"not empty"))
    assert s3.keys(bucket) == []


async def test_who_says_yes_to_everything_is_no_storage(s3: S3Server, tmp_path: Path) -> None:
    """Or the upload would be deleted although its variants are not stored."""

    async def agree(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    async with serving(agree) as port:
        url = f"http://127.0.0.1:{port}"
        async with s3_storage(S3(**s3.settings("pictures", endpoint_url=url))) as storage:
            with pytest.raises(StorageError, match="without an ETag"):
                await storage.put("a/b", KEY, source(tmp_path, b"bytes"))


async def test_store_that_hangs_keeps_nobody_from_an_address(s3: S3Server, bucket: str, faulty: Proxy) -> None:
    patient = {"read_timeout_seconds": 15, "connections": 2, "endpoint_url": faulty.url}
    async with s3_storage(S3(**s3.settings(bucket, **patient))) as storage, asyncio.TaskGroup() as group:
        faulty.fail("stall", 3)
        waiting = [group.create_task(storage.remove("a", f"{number}")) for number in range(3)]
        with within(5):
            while faulty.connections < 2:
                await asyncio.sleep(0.01)
            assert await storage.url("a", "x", 60)
        for one in waiting:
            one.cancel()
