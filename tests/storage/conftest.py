"""A storage in a bucket of its own of the real S3 server, and what is put into it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from imgsvc.settings.storage import S3
from imgsvc.storage.s3 import S3Storage, s3_storage
from tests.support.s3 import S3Server
from tests.support.s3_proxy import Proxy, proxy

KEY = "processed/large/x_large.webp"
OBJECT = f"a/b/{KEY}"


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.bucket()


@pytest.fixture
async def storage(s3: S3Server, bucket: str) -> AsyncIterator[S3Storage]:
    async with s3_storage(S3(**s3.settings(bucket))) as one:
        yield one


@pytest.fixture
async def faulty(s3: S3Server) -> AsyncIterator[Proxy]:
    async with proxy(s3.port) as one:
        yield one


def source(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "source"
    path.write_bytes(data)
    return path


async def read(storage: S3Storage, start: int, length: int) -> bytes:
    blob = await storage.read("a/b", KEY, start, length)
    return blob.first + b"".join([chunk async for chunk in blob.rest])
