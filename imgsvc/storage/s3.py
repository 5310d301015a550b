"""Variants as objects in one S3 bucket: {bucket}/{key}. The import takes a third of a second: do it only if needed."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

import structlog
from botocore.exceptions import ClientError

from ..settings.storage import S3
from .base import HEALTH, IMMUTABLE, Blob, Differs, NotStored, Original, StorageError, Stored, is_probe
from .keys import SOURCES, media_type, split_path
from .s3_client import Client, S3Client, s3_client
from .s3_errors import CAN_NOT_ENCRYPT, as_storage_error, is_missing, is_not_implemented, is_outside
from .s3_incoming import S3Incoming, is_incoming

log = structlog.get_logger()

CHUNK = 256 * 1024  # bytes; most variants are one chunk
DOCTOR = "doctor-"  # begins the name of the probe of `imgsvc doctor`, beside those of services


class S3Storage(S3Incoming):
    name = "s3"
    probe_interval = 300.0

    def __init__(self, settings: S3, client: S3Client) -> None:
        encryption = {"ServerSideEncryption": "AES256"} if settings.encryption == "AES256" else {}
        super().__init__(settings.bucket, client, encryption)

    async def put(self, bucket: str, key: str, source: Path) -> None:
        async def put(client: Client) -> None:
            try:
                with source.open("rb") as body, self._naming_encryption(bucket):
                    answer = await client.put_object(
                        **self._object(bucket, key),
                        Body=body,
                        ContentMD5=digest,
                        ContentType=media_type(key),
                        CacheControl=_caching(key),
                        **self._encryption,
                    )
            except FileNotFoundError:
                raise StorageError("putting failed: the file is gone") from None
            if not answer.get("ETag"):  # a proxy or web server that answers 200 to everything has stored nothing
                raise StorageError(f"put {bucket}: an answer without an ETag", "The address is no object storage.")

        try:
            digest, size = await asyncio.to_thread(_content_md5, source)
        except OSError as error:
            raise as_storage_error(error, f"put {bucket}") from error
        await self._client.do(f"put {bucket}", put, size, once=is_probe(bucket))

    async def copy(self, bucket: str, key: str, original: Original) -> None:
        """The store copies the object, which is then read once: only its bytes show that it is the right one.

        It gets its final name at once: until a row names it, no client can ask for it.
        """

        async def copy(client: Client) -> None:
            with self._naming_encryption(bucket):
                await client.copy_object(
                    **self._object(bucket, key),
                    CopySource=self._object(original.bucket, original.key),
                    MetadataDirective="REPLACE",
                    ContentType=media_type(key),
                    CacheControl=_caching(key),
                    **self._encryption,
                )
            body, digest = (await client.get_object(**self._object(bucket, key)))["Body"], hashlib.sha256()
            try:
                while chunk := await _read(body, CHUNK):
                    await asyncio.to_thread(digest.update, chunk)
            finally:
                body.close()
            if digest.hexdigest() != original.sha256:
                raise Differs(original.key)

        await self._client.do(f"copy {bucket}", copy, original.size_bytes)

    async def remove(self, bucket: str, key: str) -> bool:
        async def remove(client: Client) -> bool:
            """S3's DELETE does not report whether the object existed, and HEAD does so only with s3:ListBucket.

            Without that right, or where HEAD is refused for another reason, the object counts as one that existed.
            """
            try:
                found = await _head(client, self._object(bucket, key)) is not None
            except ClientError:
                found = True
            await client.delete_object(**self._object(bucket, key))
            return found

        return await self._client.do(f"remove {bucket}", remove, once=is_probe(bucket))

    async def read(self, bucket: str, key: str, start: int, length: int) -> Blob:
        async def read(client: Client) -> tuple[bytes, Any]:
            wanted = f"bytes={start}-{start + length - 1}"
            try:
                body = (await client.get_object(**self._object(bucket, key), Range=wanted))["Body"]
            except ClientError as error:
                if is_outside(error):
                    return b"", None
                raise
            try:
                first = await _read(body, min(CHUNK, length))
            except BaseException:
                body.close()
                raise
            return first, body

        if length <= 0:
            return Blob(b"", _nothing())
        first, body = await self._client.do(f"read {bucket}", read, length, once=is_probe(bucket))
        return Blob(first, self._rest(body, length - len(first)) if first else _nothing())

    async def _rest(self, body: Any, left: int) -> AsyncIterator[bytes]:
        try:
            while left > 0:
                try:
                    chunk = await self._client.loop.call(_read(body, min(CHUNK, left)))
                except Exception as error:
                    raise as_storage_error(error, "reading failed") from error
                if not chunk:
                    return
                left -= len(chunk)
                yield chunk
        finally:
            self._client.loop.call_soon(body.close)

    async def size(self, bucket: str, key: str) -> int | None:
        """The size in bytes; None if the object does not exist. Raises StorageError."""

        async def size(client: Client) -> int | None:
            found = await _head(client, self._object(bucket, key))
            if found is None:  # the object or the whole bucket is missing: find out which
                await client.head_bucket(Bucket=self._bucket)
            return None if found is None else int(found["ContentLength"])

        try:
            return await self._client.do(f"size {bucket}", size)
        except NotStored:
            raise StorageError(f"size {bucket}: no such bucket", "The bucket does not exist.") from None

    async def fetch(self, bucket: str, key: str, target: Path, size: int) -> None:
        """Copy the object into a new local file; a larger `size` allows more time. Raises NotStored or StorageError."""

        async def fetch(client: Client) -> None:
            body = (await client.get_object(**self._object(bucket, key)))["Body"]
            try:
                with target.open("wb") as file:
                    while chunk := await _read(body, CHUNK):
                        await asyncio.to_thread(file.write, chunk)
            finally:
                body.close()

        try:
            await self._client.do(f"fetch {bucket}", fetch, size)
        except StorageError as error:
            await asyncio.to_thread(target.unlink, missing_ok=True)
            if isinstance(error, NotStored):
                await self.size(bucket, key)  # raises if the whole bucket is missing
            raise

    async def everything(self) -> AsyncIterator[Stored]:
        """All objects except those in `.health` and those of machines, page by page. Raises StorageError."""
        more: dict[str, str] = {}

        async def page_of(client: Client) -> dict[str, Any]:
            return dict(await client.list_objects_v2(Bucket=self._bucket, **more))

        while True:
            page = await self._client.do("list", page_of)
            for one in page.get("Contents", []):
                if not (one["Key"].startswith(f"{HEALTH}/") or is_incoming(one["Key"])):
                    yield Stored(*split_path(one["Key"]), one["Size"], one["LastModified"])
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    async def services(self) -> list[str]:
        """Each service has `.health/{id}/probe`, which remains when the service is gone. Raises StorageError.

        The probe that a killed `imgsvc doctor` left is no service's.
        """

        async def folders(client: Client) -> dict[str, Any]:
            asked = {"Prefix": f"{HEALTH}/", "Delimiter": "/"}
            return dict(await client.list_objects_v2(Bucket=self._bucket, **asked))

        page = await self._client.do("list services", folders)
        names = (one["Prefix"].split("/")[1] for one in page.get("CommonPrefixes", []))
        return [name for name in names if not name.startswith(DOCTOR)]

    async def url(
        self, bucket: str, key: str, seconds: int, method: Literal["GET", "HEAD"] = "GET", *, private: bool = False
    ) -> str:
        async def sign(client: Client) -> str:
            left = await self._client.lifetime(client, seconds)
            asked = self._object(bucket, key)
            if private:  # part of the signature; the object's own Cache-Control is public
                asked["ResponseCacheControl"] = f"private, max-age={left}"
            operation = "head_object" if method == "HEAD" else "get_object"
            return str(await client.generate_presigned_url(operation, Params=asked, ExpiresIn=left))

        return await self._client.do(f"sign {bucket}", sign, sends=False)

    async def url_seconds(self, seconds: int) -> int:
        async def measured(client: Client) -> int:
            return await self._client.lifetime(client, seconds)

        return await self._client.do("sign", measured, sends=False)

    @contextmanager
    def _naming_encryption(self, bucket: str) -> Iterator[None]:
        """Name the setting where a store answers 501 to a put: one without keys can't encrypt (MinIO without KMS)."""
        try:
            yield
        except ClientError as error:
            if self._encryption and is_not_implemented(error):
                log.error("s3_can_not_encrypt", reason=str(error), setting="[s3] encryption = none")
                raise StorageError(f"put {bucket}: {error}", CAN_NOT_ENCRYPT) from error
            raise

    def _object(self, bucket: str, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{bucket}/{key}" if bucket else key}


@asynccontextmanager
async def s3_storage(settings: S3) -> AsyncIterator[S3Storage]:
    async with s3_client(settings) as client:
        yield S3Storage(settings, client)


def _caching(key: str) -> str:
    """What the object itself says. A source is streamed by the service alone, and no cache may keep it."""
    return "private, no-store" if key.startswith(SOURCES) else IMMUTABLE


async def _head(client: Client, place: dict[str, str]) -> dict[str, Any] | None:
    try:
        return dict(await client.head_object(**place))
    except ClientError as error:
        if is_missing(error):
            return None
        raise


async def _read(body: Any, length: int) -> bytes:
    """Read `length` bytes, fewer only at the end."""
    parts, left = [], length
    while left > 0 and (part := await body.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _content_md5(source: Path) -> tuple[str, int]:
    """The Content-MD5 of a file, with which a PUT is checked (RFC 1864), and its size in bytes."""
    with source.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
        return base64.b64encode(digest.digest()).decode(), stream.tell()


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
