"""The S3 client: one for the process, on an event loop of its own, with limits of time and with retries.

Its credential files and processes, DNS, TLS contexts, checksums and signatures must not block the service's loop.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, TypeVar

import aiobotocore.session
import structlog
from aiobotocore.config import AioConfig
from botocore.exceptions import NoCredentialsError

from ..settings.storage import S3
from .base import StorageError
from .loop_thread import LoopThread, loop_thread
from .s3_errors import as_storage_error, may_pass

T = TypeVar("T")
Client = Any  # botocore generates its classes at run time
Operation = Callable[[Client], Awaitable[T]]

SLOWEST = 64 * 1024  # bytes per second: a larger transfer gets more time than a small one at this rate
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0

log = structlog.get_logger()


class S3Client:
    """`loop` is where the bodies of answers must be read too."""

    def __init__(self, settings: S3, loop: LoopThread) -> None:
        self.loop = loop
        self._settings = settings
        self._client: Client = None
        self._signer: Client = None  # the same client, unless browsers know the store by another address
        self._opening = asyncio.Lock()
        self._slots = asyncio.Semaphore(settings.connections)

    async def do(
        self,
        what: str,
        operation: Operation[T],
        size: int = 0,
        *,
        once: bool = False,
        sends: bool = True,
        inside: bool = False,
    ) -> T:
        """Run an operation with retries on the client's loop; a larger `size` allows more time. Raises StorageError.

        Signing (`sends` is false) must not wait for a connection that a hanging store occupies. It is done for the
        address that browsers use, or with `inside` for the one that this service uses.
        """
        attempts = 1 if once else self._settings.attempts
        return await self.loop.call(self._attempts(what, operation, size, attempts, sends=sends, inside=inside))

    async def lifetime(self, client: Client, seconds: int) -> int:
        """Seconds for which what is signed now stays valid: `seconds`, or the rest of the temporary credentials' life.

        botocore renews them a quarter of an hour before they end. Must run on the client's event loop.
        """
        credentials = client._request_signer._credentials
        if credentials is None:
            return seconds  # signing raises the reason
        await credentials.get_frozen_credentials()  # renews them if it is time
        ends: datetime | None = getattr(credentials, "_expiry_time", None)  # botocore offers no other way
        return seconds if ends is None else max(1, min(seconds, int((ends - datetime.now(UTC)).total_seconds())))

    async def _attempts(
        self, what: str, operation: Operation[T], size: int, attempts: int, *, sends: bool, inside: bool
    ) -> T:
        reason = StorageError(f"{what}: no answer in time", "The object storage does not answer in time.")
        try:
            async with (
                self._slots if sends else nullcontext(),
                asyncio.timeout(self._settings.total_timeout_seconds + size / SLOWEST),
            ):
                for attempt in range(1, attempts + 1):
                    try:
                        return await self._attempt(operation, size, inside=sends or inside)
                    except Exception as error:
                        reason = as_storage_error(error, what)
                        if not may_pass(error) or attempt == attempts:
                            raise reason from error
                        log.info("s3_tried_again", reason=str(reason), attempt=attempt)
                    await asyncio.sleep(_pause(attempt))
        except TimeoutError:
            raise reason from None
        raise reason

    async def _attempt(self, operation: Operation[T], size: int, *, inside: bool) -> T:
        """The library's time-outs begin once the request is sent: a store that does not read it needs this one too."""
        settings = self._settings
        async with asyncio.timeout(settings.connect_timeout_seconds + settings.read_timeout_seconds + size / SLOWEST):
            try:
                client = await self._opened()
                return await operation(client if inside else self._signer)
            except NoCredentialsError:
                await self.close()  # the next attempt looks for credentials again
                raise

    async def _opened(self) -> Client:
        """The client that sends. The one that signs is opened with it, and shares its credentials."""
        settings = self._settings
        async with self._opening:
            if self._client is None:
                session = aiobotocore.session.get_session()
                client = signer = await _client(session, settings, settings.endpoint_url).__aenter__()
                if settings.public_endpoint_url:
                    signer = await _client(session, settings, settings.public_endpoint_url).__aenter__()
                self._client, self._signer = client, signer
            return self._client

    async def close(self) -> None:
        """Must run on the client's event loop."""
        opened = {id(one): one for one in (self._client, self._signer) if one is not None}
        self._client = self._signer = None
        for client in opened.values():
            await client.close()


@asynccontextmanager
async def s3_client(settings: S3) -> AsyncIterator[S3Client]:
    """The client is created at its first use: wrong settings show in health and don't prevent a start."""
    async with loop_thread("s3") as loop:
        client = S3Client(settings, loop)
        try:
            yield client
        finally:
            await asyncio.shield(loop.call(client.close()))


def _client(session: aiobotocore.session.AioSession, settings: S3, endpoint: str) -> Any:
    """Create the client, not opened yet. Without keys in the settings, botocore finds credentials and renews them."""
    keys = {
        "aws_access_key_id": settings.access_key_id,
        "aws_secret_access_key": settings.secret_access_key.get_secret_value(),
        "aws_session_token": settings.session_token.get_secret_value() or None,
    }
    addressing = settings.addressing
    if addressing == "auto" and endpoint:
        addressing = "path"
    return session.create_client(
        "s3",
        region_name=settings.region,
        endpoint_url=endpoint or None,
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


def _pause(attempt: int) -> float:
    """Seconds to wait: random, with an upper bound that doubles, so that failed clients don't retry together."""
    return random.uniform(0, min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS))  # noqa: S311
