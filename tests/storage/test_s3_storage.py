"""The S3 backend against a server that checks signatures."""

import asyncio
import filecmp
import gc
import json
import os
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
import pytest
from structlog.testing import capture_logs

from imgsvc.settings.storage import S3
from imgsvc.storage.base import NotStored, StorageError
from imgsvc.storage.s3 import CHUNK, S3Storage, s3_storage
from tests.support.s3 import SECRET, S3Server
from tests.support.s3_proxy import Proxy
from tests.support.speed import within
from tests.support.stored import KEY, OBJECT, read, source


async def test_what_is_put_can_be_read_in_parts_and_removed(
    storage: S3Storage, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    data = os.urandom(CHUNK * 2 + 5)
    await storage.put("a/b", KEY, source(tmp_path, data))
    assert s3.keys(bucket) == [OBJECT]
    assert await storage.size("a/b", KEY) == len(data)
    assert await read(storage, 0, len(data)) == data
    assert await read(storage, CHUNK - 3, CHUNK + 6) == data[CHUNK - 3 : 2 * CHUNK + 3]
    assert await read(storage, 7, 0) == await read(storage, len(data), 5) == b""
    assert await read(storage, len(data) - 2, 100) == data[-2:]
    copy = tmp_path / "copy"
    await storage.fetch("a/b", KEY, copy, 0)
    assert copy.read_bytes() == data
    assert await storage.remove("a/b", KEY)
    assert not await storage.remove("a/b", KEY)
    assert await storage.size("a/b", KEY) is None
    for missing in (read(storage, 0, 1), storage.fetch("a/b", KEY, tmp_path / "other", 0)):
        with pytest.raises(NotStored):
            await missing
    assert not (tmp_path / "other").exists()


async def test_object_says_what_it_is(storage: S3Storage, s3: S3Server, bucket: str, tmp_path: Path) -> None:
    await storage.put("a/b", KEY, source(tmp_path, b"old"))
    await storage.put("a/b", KEY, source(tmp_path, b"newer"))
    head = s3.client.head_object(Bucket=bucket, Key=OBJECT)
    assert head["ContentLength"] == 5
    assert head["ContentType"] == "image/webp"
    assert head["CacheControl"] == "public, max-age=31536000, immutable"
    assert head["ServerSideEncryption"] == "AES256"


async def test_listing_is_whole_and_split_into_buckets(
    storage: S3Storage, s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"processed/b/processed/small/{number:04}.webp" for number in range(7)]
    for name in [*names, ".health/one/probe", "foreign", "a/foreign"]:
        s3.client.put_object(Bucket=bucket, Key=name, Body=b"12")

    def by_three(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = 3

    client = await storage._client.loop.call(storage._client._opened())
    client.meta.events.register("before-parameter-build.s3.ListObjectsV2", by_three)
    found = [one async for one in storage.everything()]
    expected = [("processed/b", name.removeprefix("processed/b/")) for name in names]
    assert sorted((one.bucket, one.key) for one in found) == sorted([*expected, ("", "foreign"), ("a", "foreign")])
    assert {one.size_bytes for one in found} == {2}
    assert all(abs(one.modified - datetime.now(UTC)) < timedelta(minutes=1) for one in found)
    assert await storage.size("", "foreign") == await storage.size("a", "foreign") == 2


async def test_presigned_url_is_good_for_its_time_and_its_object_only(storage: S3Storage, tmp_path: Path) -> None:
    await storage.put("a/b", KEY, source(tmp_path, b"the bytes"))
    url, short = await storage.url("a/b", KEY, 604_800), await storage.url("a/b", KEY, 1)
    head = await storage.url("a/b", KEY, 60, "HEAD")
    async with httpx.AsyncClient() as client:
        answer = await client.get(url, headers={"Range": "bytes=4-"})
        assert (answer.status_code, answer.content) == (206, b"bytes")
        assert (await client.head(head)).headers["Content-Length"] == "9"
        with within(10):
            while (await client.get(short)).status_code != 403:
                await anyio.sleep(0.1)
        for tampered in (url.replace("large", "small"), url.replace("604800", "604799"), url[:-1] + "z", head):
            assert (await client.get(tampered)).status_code == 403


async def test_urls_are_signed_for_the_public_address(s3: S3Server, bucket: str, faulty: Proxy, tmp_path: Path) -> None:
    """Which is a proxy here, before the same store."""
    settings = S3(**s3.settings(bucket, public_endpoint_url=faulty.url))
    async with s3_storage(settings) as storage:
        await storage.put("a/b", KEY, source(tmp_path, b"the bytes"))
        url = await storage.url("a/b", KEY, 60)
        assert url.startswith(f"{faulty.url}/{bucket}/{OBJECT}?") and faulty.connections == 0
        async with httpx.AsyncClient() as client:
            answer = await client.get(url)
            assert (answer.status_code, answer.content) == (200, b"the bytes")
            assert (await client.get(url.replace(faulty.url, s3.url))).status_code == 403
        assert await storage.remove("a/b", KEY) and faulty.connections == 1


@pytest.mark.parametrize(("left", "asked", "most"), [(1200, 3600, 1200), (1200, 60, 60), (7200, 3600, 3600)])
def test_no_url_outlives_the_credentials_that_signed_it(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int, asked: int, most: int
) -> None:
    """Temporary ones, as a role or a process of the user's hands them out."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    ends = (datetime.now(UTC) + timedelta(seconds=left)).isoformat()
    given = {"Version": 1, "AccessKeyId": "test:tester", "SecretAccessKey": SECRET, "Expiration": ends}
    (tmp_path / "given").write_text(json.dumps(given))
    (tmp_path / "config").write_text(f"[profile ours]\ncredential_process = cat {tmp_path / 'given'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "ours")
    settings = S3(**s3.settings(s3.bucket(), access_key_id="", secret_access_key=""))

    async def signed() -> tuple[str, int]:
        async with s3_storage(settings) as storage:
            return await storage.url("a/b", KEY, asked, private=True), await storage.url_seconds(asked)

    url, valid = asyncio.run(signed())
    query = parse_qs(urlsplit(url).query)
    assert most - 30 <= int(query["X-Amz-Expires"][0]) <= most and most - 30 <= valid <= most
    assert query["response-cache-control"] == [f"private, max-age={query['X-Amz-Expires'][0]}"]


async def test_wrong_settings_are_named_and_not_tried_again(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    wrong = {
        "The bucket does not exist.": {"bucket": "not-there"},
        "The object storage refuses the signature: the secret access key is wrong.": {"secret_access_key": "hush"},
    }
    with capture_logs() as logged:
        for plain, more in wrong.items():
            async with s3_storage(S3(**{**s3.settings(bucket), **more})) as storage:
                with pytest.raises(StorageError) as raised:
                    await storage.put("a/b", KEY, source(tmp_path, b"x"))
                assert raised.value.plain == plain
                assert not isinstance(raised.value, NotStored)
                assert "hush" not in str(raised.value) + plain
                for refused in (storage.remove("a/b", KEY), storage.size("a/b", KEY), read(storage, 0, 5)):
                    with pytest.raises(StorageError) as raised:
                        await refused
                    assert not isinstance(raised.value, NotStored)
    assert logged == []
    assert s3.keys(bucket) == []


def test_keys_are_looked_for_where_aws_tools_do(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "ours")
    settings = S3(**s3.settings(s3.bucket(), access_key_id="", secret_access_key=""))

    async def first_without_then_with_keys() -> None:
        (tmp_path / "credentials").write_text("[ours]\n")
        async with s3_storage(settings) as storage:
            with pytest.raises(StorageError) as raised:
                await storage.size("a", KEY)
            assert raised.value.plain.startswith("No access key was found")
            keys = f"aws_access_key_id = test:tester\naws_secret_access_key = {s3.settings('')['secret_access_key']}\n"
            (tmp_path / "credentials").write_text(f"[ours]\n{keys}")
            assert await storage.size("a", KEY) is None

    asyncio.run(first_without_then_with_keys())


@pytest.fixture
def no_collections() -> Iterator[None]:
    """A collection of what the whole test run has in memory takes 40 ms, in whichever thread it falls."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collections")
async def test_our_loop_never_waits_for_it(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    """Not while the client is made, and not while large files are hashed, signed and sent."""
    path = source(tmp_path, os.urandom(2_000_000))
    longest, over = 0.0, asyncio.Event()

    async def beat() -> None:
        nonlocal longest
        while not over.is_set():
            before = time.thread_time()  # of this thread alone: other processes may have the processor
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    beating = asyncio.create_task(beat())
    async with s3_storage(S3(**s3.settings(bucket))) as storage, asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(storage.put("a", f"{number}", path))
            group.create_task(storage.url("a", f"{number}", 60))
    over.set()
    await beating
    assert longest < 0.02
    assert len(s3.keys(bucket)) == 8


async def test_large_file_passes_in_small_parts(storage: S3Storage, tmp_path: Path) -> None:
    path, copy = source(tmp_path, os.urandom(16_000_000)), tmp_path / "copy"
    await storage.put("a/b", KEY, path)  # the library's own imports and models come first
    tracemalloc.start()
    try:
        await storage.put("a/b", KEY, path)
        await storage.fetch("a/b", KEY, copy, 0)
        blob = await storage.read("a/b", KEY, 0, 16_000_000)
        assert len(blob.first) + sum([len(chunk) async for chunk in blob.rest]) == 16_000_000
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert filecmp.cmp(path, copy, shallow=False)


async def test_probe_of_a_killed_doctor_is_no_service(storage: S3Storage, tmp_path: Path) -> None:
    """gc would refuse to remove anything until an operator had removed it."""
    probe = tmp_path / "probe"
    probe.write_bytes(b"x")
    for name in ("doctor-0123456789abcdef", "11111111-1111-4111-8111-111111111111"):
        await storage.put(f".health/{name}", "probe", probe)
    assert await storage.services() == ["11111111-1111-4111-8111-111111111111"]
