"""Variants as objects in one S3 bucket: {bucket}/{key}. Import it only where S3 is used: it takes a third of a second.

The client lives on an event loop of its own: its credential files and processes, its DNS, TLS contexts, checksums and
signatures must not make ours wait.
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
from .base import Blob, NotStored, StorageError, Stored
from .keys import split_path
from .loop_thread import LoopThread, loop_thread
from .s3_errors import as_storage_error, is_missing, is_outside, may_pass

T = TypeVar("T")
Client = Any  # botocore makes its classes while it runs
Operation = Callable[[Client], Awaitable[T]]

CHUNK = 256 * 1024  # bytes; most variants are one chunk
SLOWEST = 64 * 1024  # bytes per second: what a transfer may take beyond the time for small ones
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0
HEALTH = ".health"  # what the health check puts and reads: nobody's picture
IMMUTABLE = "public, max-age=31536000, immutable"

log = structlog.get_logger()


class S3Storage:
    name = "s3"

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
            if not answer.get("ETag"):  # a proxy or a web server that says 200 to everything has stored nothing
                raise StorageError(f"put {bucket}: an answer without an ETag", "The address is no object storage.")

        try:
            digest, size = await asyncio.to_thread(_content_md5, source)
        except OSError as error:
            raise as_storage_error(error, f"put {bucket}") from error
        await self._do(f"put {bucket}", put, size, once=bucket.startswith(HEALTH))

    async def remove(self, bucket: str, key: str) -> bool:
        async def remove(client: Client) -> bool:
            """S3 does not say whether there was something; and only a DELETE says that the whole bucket is missing."""
            found = await _head(client, self._object(bucket, key)) is not None
            await client.delete_object(**self._object(bucket, key))
            return found

        return await self._do(f"remove {bucket}", remove, once=bucket.startswith(HEALTH))

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
        first, body = await self._do(f"read {bucket}", read, length, once=bucket.startswith(HEALTH))
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
            self._loop.soon(body.close)

    async def size(self, bucket: str, key: str) -> int | None:
        """Bytes; None: it is not there. Raises StorageError."""

        async def size(client: Client) -> int | None:
            found = await _head(client, self._object(bucket, key))
            if found is None:  # or is the whole bucket missing?
                await client.head_bucket(Bucket=self._settings.bucket)
            return None if found is None else int(found["ContentLength"])

        try:
            return await self._do(f"size {bucket}", size)
        except NotStored:
            raise StorageError(f"size {bucket}: no such bucket", "The bucket does not exist.") from None

    async def fetch(self, bucket: str, key: str, target: Path, size: int) -> None:
        """Copy it into a new local file; `size` in bytes allows more time. Raises NotStored or StorageError."""

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
                await self.size(bucket, key)  # raises when it is the whole bucket that is missing
            raise

    async def everything(self) -> AsyncIterator[Stored]:
        """All that is stored, nothing of `.health`, a page at a time. Raises StorageError."""
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
        """Each keeps `.health/{id}/probe`, which nobody removes when it is gone. Raises StorageError."""

        async def folders(client: Client) -> dict[str, Any]:
            asked = {"Prefix": f"{HEALTH}/", "Delimiter": "/"}
            return dict(await client.list_objects_v2(Bucket=self._settings.bucket, **asked))

        page = await self._do("list services", folders)
        return [one["Prefix"].split("/")[1] for one in page.get("CommonPrefixes", [])]

    async def url(
        self, bucket: str, key: str, seconds: int, method: Literal["GET", "HEAD"] = "GET", *, private: bool = False
    ) -> str:
        operation = "head_object" if method == "HEAD" else "get_object"
        asked = self._object(bucket, key)
        if private:  # signed too; what the object itself says, it says to everybody
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
        """On the client's own loop, with all attempts; `size` in bytes allows more time. Raises StorageError.

        What only signs (`sends` is false) must not wait until a store that hangs gives up a connection.
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
        """The library's own time-outs begin when the request is sent: a store that does not read it needs another."""
        settings = self._settings
        async with asyncio.timeout(settings.connect_timeout_seconds + settings.read_timeout_seconds + size / SLOWEST):
            try:
                return await operation(await self._opened())
            except NoCredentialsError:
                await self.close()  # the next one looks for them again
                raise

    async def _opened(self) -> Client:
        async with self._opening:
            if self._client is None:
                self._client = await _client(self._settings).__aenter__()
            return self._client

    async def close(self) -> None:
        """To be called on the client's own loop."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


@asynccontextmanager
async def s3_storage(settings: S3) -> AsyncIterator[S3Storage]:
    """One client for the process, made when it is first needed: wrong settings show in the health, not as no start."""
    async with loop_thread("s3") as loop:
        storage = S3Storage(settings, loop)
        try:
            yield storage
        finally:
            await asyncio.shield(loop.call(storage.close()))


def _client(settings: S3) -> Any:
    """Not opened yet. Without keys in the settings, botocore looks for some, and renews what it found in time."""
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
            retries={"total_max_attempts": 1},  # ours know which requests are not worth another
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
    """So many bytes, fewer only at the end."""
    parts, left = [], length
    while left > 0 and (part := await body.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _content_md5(source: Path) -> tuple[str, int]:
    """(the digest that a PUT is checked by (RFC 1864), bytes)."""
    with source.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
        return base64.b64encode(digest.digest()).decode(), stream.tell()


def _pause(attempt: int) -> float:
    """Seconds, anything up to a bound that doubles: clients that failed together must not come back together."""
    return random.uniform(0, min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS))  # noqa: S311


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
