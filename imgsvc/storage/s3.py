"""Variants as objects in one S3 bucket: {bucket}/{key}. The import takes a third of a second: do it only if needed.

The client has its own event loop: its credential files and processes, DNS, TLS contexts, checksums and signatures
must not block the service's loop.
"""

import asyncio
import base64
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiobotocore.session
import structlog
from aiobotocore.config import AioConfig
from botocore.exceptions import ClientError, NoCredentialsError

from ..settings.storage import S3
from .base import HEALTH, IMMUTABLE, Blob, NotStored, StorageError, Stored, is_probe
from .keys import split_path
from .loop_thread import LoopThread, loop_thread
from .s3_errors import as_storage_error, is_missing, is_outside, may_pass

T = TypeVar("T")
Client = Any  # botocore generates its classes at run time
Operation = Callable[[Client], Awaitable[T]]

CHUNK = 256 * 1024  # bytes; most variants are one chunk
SLOWEST = 64 * 1024  # bytes per second: a larger transfer gets more time than a small one at this rate
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0
DOCTOR = "doctor-"  # begins the name of the probe of `imgsvc doctor`, beside those of services

log = structlog.get_logger()


class S3Storage:
    name = "s3"
    probe_interval = 300.0

    def __init__(self, settings: S3, loop: LoopThread) -> None:
        self._settings = settings
        self._loop = loop
        self._client: Client = None
        self._opening = asyncio.Lock()
        self._slots = asyncio.Semaphore(settings.connections)
        self._encryption = {"ServerSideEncryption": "AES256"} if settings.encryption == "AES256" else {}

    async def put(self, bucket: str, key: str, source: Path) -> None:
        async def put(client: Client) -> None:
            try:
                with source.open("rb") as body:
                    answer = await client.put_object(
                        **self._object(bucket, key),
                        Body=body,
                        ContentMD5=digest,
                        ContentType="image/webp",
                        CacheControl=IMMUTABLE,
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
        await self._do(f"put {bucket}", put, size, once=is_probe(bucket))

    async def remove(self, bucket: str, key: str) -> bool:
        async def remove(client: Client) -> bool:
            """S3's DELETE does not report whether the object existed; HEAD does not report a missing bucket."""
            found = await _head(client, self._object(bucket, key)) is not None
            await client.delete_object(**self._object(bucket, key))
            return found

        return await self._do(f"remove {bucket}", remove, once=is_probe(bucket))

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
        first, body = await self._do(f"read {bucket}", read, length, once=is_probe(bucket))
        return Blob(first, self._rest(body, length - len(first)) if first else _nothing())

    async def _rest(self, body: Any, left: int) -> AsyncIterator[bytes]:
        try:
            while left > 0:
                try:
                    chunk = await self._loop.call(_read(body, min(CHUNK, left)))
                except Exception as error:
                    raise as_storage_error(error, "reading failed") from error
                if not chunk:
                    return
                left -= len(chunk)
                yield chunk
        finally:
            self._loop.call_soon(body.close)

    async def size(self, bucket: str, key: str) -> int | None:
        """The size in bytes; None if the object does not exist. Raises StorageError."""

        async def size(client: Client) -> int | None:
            found = await _head(client, self._object(bucket, key))
            if found is None:  # the object or the whole bucket is missing: find out which
                await client.head_bucket(Bucket=self._settings.bucket)
            return None if found is None else int(found["ContentLength"])

        try:
            return await self._do(f"size {bucket}", size)
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
            await self._do(f"fetch {bucket}", fetch, size)
        except StorageError as error:
            await asyncio.to_thread(target.unlink, missing_ok=True)
            if isinstance(error, NotStored):
                await self.size(bucket, key)  # raises if the whole bucket is missing
            raise

    async def everything(self) -> AsyncIterator[Stored]:
        """All objects except those in `.health`, page by page. Raises StorageError."""
        more: dict[str, str] = {}

        async def page_of(client: Client) -> dict[str, Any]:
            return dict(await client.list_objects_v2(Bucket=self._settings.bucket, **more))

        while True:
            page = await self._do("list", page_of)
            for one in page.get("Contents", []):
                if not one["Key"].startswith(f"{HEALTH}/"):
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
            return dict(await client.list_objects_v2(Bucket=self._settings.bucket, **asked))

        page = await self._do("list services", folders)
        names = (one["Prefix"].split("/")[1] for one in page.get("CommonPrefixes", []))
        return [name for name in names if not name.startswith(DOCTOR)]

    async def url(
        self, bucket: str, key: str, seconds: int, method: Literal["GET", "HEAD"] = "GET", *, private: bool = False
    ) -> str:
        operation = "head_object" if method == "HEAD" else "get_object"
        asked = self._object(bucket, key)
        if private:  # part of the signature; the object's own Cache-Control is public
            asked["ResponseCacheControl"] = f"private, max-age={seconds}"
        return str(
            await self._do(
                f"sign {bucket}",
                lambda client: client.generate_presigned_url(operation, Params=asked, ExpiresIn=seconds),
                sends=False,
            )
        )

    def _object(self, bucket: str, key: str) -> dict[str, str]:
        return {"Bucket": self._settings.bucket, "Key": f"{bucket}/{key}" if bucket else key}

    async def _do(
        self, what: str, operation: Operation[T], size: int = 0, *, once: bool = False, sends: bool = True
    ) -> T:
        """Run an operation with retries on the client's loop; a larger `size` allows more time. Raises StorageError.

        Signing (`sends` is false) must not wait for a connection that a hanging store occupies.
        """
        attempts = 1 if once else self._settings.attempts
        return await self._loop.call(self._attempts(what, operation, size, attempts, sends=sends))

    async def _attempts(self, what: str, operation: Operation[T], size: int, attempts: int, *, sends: bool) -> T:
        reason = StorageError(f"{what}: no answer in time", "The object storage does not answer in time.")
        try:
            async with (
                self._slots if sends else nullcontext(),
                asyncio.timeout(self._settings.total_timeout_seconds + size / SLOWEST),
            ):
                for attempt in range(1, attempts + 1):
                    try:
                        return await self._attempt(operation, size)
                    except Exception as error:
                        reason = as_storage_error(error, what)
                        if not may_pass(error) or attempt == attempts:
                            raise reason from error
                        log.info("s3_tried_again", reason=str(reason), attempt=attempt)
                    await asyncio.sleep(_pause(attempt))
        except TimeoutError:
            raise reason from None
        raise reason

    async def _attempt(self, operation: Operation[T], size: int) -> T:
        """The library's time-outs begin once the request is sent: a store that does not read it needs this one too."""
        settings = self._settings
        async with asyncio.timeout(settings.connect_timeout_seconds + settings.read_timeout_seconds + size / SLOWEST):
            try:
                return await operation(await self._opened())
            except NoCredentialsError:
                await self.close()  # the next attempt looks for credentials again
                raise

    async def _opened(self) -> Client:
        async with self._opening:
            if self._client is None:
                self._client = await _client(self._settings).__aenter__()
            return self._client

    async def close(self) -> None:
        """Must run on the client's event loop."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


@asynccontextmanager
async def s3_storage(settings: S3) -> AsyncIterator[S3Storage]:
    """One client per process, created at its first use: wrong settings show in health and don't prevent a start."""
    async with loop_thread("s3") as loop:
        storage = S3Storage(settings, loop)
        try:
            yield storage
        finally:
            await asyncio.shield(loop.call(storage.close()))


def _client(settings: S3) -> Any:
    """Create the client, not opened yet. Without keys in the settings, botocore finds credentials and renews them."""
    keys = {
        "aws_access_key_id": settings.access_key_id,
        "aws_secret_access_key": settings.secret_access_key.get_secret_value(),
        "aws_session_token": settings.session_token.get_secret_value() or None,
    }
    addressing = settings.addressing
    if addressing == "auto" and settings.endpoint_url:
        addressing = "path"
    return aiobotocore.session.get_session().create_client(
        "s3",
        region_name=settings.region,
        endpoint_url=settings.endpoint_url or None,
        **(keys if settings.access_key_id else {}),
        config=AioConfig(
            signature_version="s3v4",
            s3={"addressing_style": addressing},
            max_pool_connections=settings.connections,
            connect_timeout=settings.connect_timeout_seconds,
            read_timeout=settings.read_timeout_seconds,
            retries={"total_max_attempts": 1},  # retries are made here, where it is known which errors are worth one
            request_checksum_calculation="when_required",  # Content-MD5 is what every compatible store checks
            response_checksum_validation="when_required",
        ),
    )


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


def _pause(attempt: int) -> float:
    """Seconds to wait: random, with an upper bound that doubles, so that failed clients don't retry together."""
    return random.uniform(0, min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS))  # noqa: S311


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
