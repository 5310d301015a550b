"""A storage in a bucket of its own of the real S3 server."""

from collections.abc import AsyncIterator

import pytest

from imgsvc.settings.storage import S3
from imgsvc.storage.s3 import S3Storage, s3_storage
from tests.support.s3 import S3Server
from tests.support.s3_proxy import Proxy, proxy


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
