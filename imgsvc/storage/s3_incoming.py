"""Objects that render machines put by themselves, at addresses that are signed for one size each."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from .base import INCOMING, Differs, SignedPut, StorageError, Stored
from .keys import IncomingName
from .s3_client import Client, S3Client
from .s3_errors import is_outside

CHUNK = 256 * 1024  # bytes


class S3Incoming:
    """`encryption`: how objects are encrypted, in botocore's words."""

    def __init__(self, bucket: str, client: S3Client, encryption: dict[str, str]) -> None:
        self._bucket = bucket
        self._client = client
        self._encryption = encryption

    async def put_address(self, key: str, size: int, seconds: int) -> SignedPut:
        async def sign(client: Client) -> str:
            left = await self._client.lifetime(client, seconds)
            asked = {**self._incoming(key), **self._encryption, "ContentLength": size}
            return str(await client.generate_presigned_url("put_object", Params=asked, ExpiresIn=left))

        address = await self._client.do("sign incoming", sign, sends=False, inside=True)
        headers = {"Content-Length": str(size)}
        if encryption := self._encryption.get("ServerSideEncryption"):
            headers["x-amz-server-side-encryption"] = encryption
        return SignedPut(address, headers)

    async def take(self, key: str, target: Path, size: int) -> None:
        async def take(client: Client) -> int:
            """One byte more is asked for, which shows whether the object is longer."""
            try:
                body = (await client.get_object(**self._incoming(key), Range=f"bytes=0-{size}"))["Body"]
            except ClientError as error:
                if is_outside(error):  # it is empty
                    return 0
                raise
            return await self._written(body, target, size)

        try:
            if await self._client.do("take incoming", take, size) != size:
                raise Differs(f"{INCOMING}/{key}")
        except StorageError:
            await asyncio.to_thread(target.unlink, missing_ok=True)
            raise

    async def _written(self, body: Any, target: Path, size: int) -> int:
        read = 0
        try:
            with target.open("wb") as file:
                while read <= size and (chunk := await body.read(min(CHUNK, size + 1 - read))):
                    read += len(chunk)
                    file.write(chunk)  # on the client's own loop
        finally:
            body.close()
        return read

    async def drop(self, key: str) -> None:
        async def drop(client: Client) -> None:
            await client.delete_object(**self._incoming(key))

        await self._client.do("drop incoming", drop)

    async def incoming(self) -> AsyncIterator[Stored]:
        """By folders, since a client's own bucket may have the same name and a million images. Raises StorageError."""
        async for page in self._pages({"Prefix": f"{INCOMING}/", "Delimiter": "/"}):
            for folder in page.get("CommonPrefixes", []):
                if IncomingName.of(f"{folder['Prefix'].split('/')[1]}/any") is None:
                    continue
                async for inner in self._pages({"Prefix": folder["Prefix"], "Delimiter": "/"}):
                    for one in inner.get("Contents", []):
                        key = one["Key"].removeprefix(f"{INCOMING}/")
                        if IncomingName.of(key):
                            yield Stored(INCOMING, key, one["Size"], one["LastModified"])

    async def _pages(self, asked: dict[str, str]) -> AsyncIterator[dict[str, Any]]:
        more: dict[str, str] = {}

        async def page_of(client: Client) -> dict[str, Any]:
            return dict(await client.list_objects_v2(Bucket=self._bucket, **asked, **more))

        while True:
            page = await self._client.do("list incoming", page_of)
            yield page
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _incoming(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{INCOMING}/{key}"}


def is_incoming(name: str) -> bool:
    """Whether an object's whole key is one that a render machine puts."""
    bucket, _, key = name.partition("/")
    return bucket == INCOMING and IncomingName.of(key) is not None
