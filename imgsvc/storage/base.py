"""What a storage backend promises. It knows buckets and keys, and nothing of jobs."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

LOCAL = "local"  # the backend that keeps variants as files under one folder


class StorageError(Exception):
    """The backend could not do it now; the message may be logged but not sent to a client.

    `plain` says why in words that anybody may read, where there are some.
    """

    def __init__(self, message: str, plain: str = "") -> None:
        super().__init__(message)
        self.plain = plain


class NotStored(StorageError):
    """There is nothing under this key."""


class StorageBusy(StorageError):
    """Not now: what is to be stored waits and is tried again, and no attempt of its job is counted.

    This process has run out of open files, for one.
    """


class StorageAway(StorageBusy):
    """The folder is not there, or is not the one that this service wrote to: its disk is not mounted, most likely."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            "The storage folder does not hold this service's id: is its disk mounted? "
            "For a new folder: imgsvc storage adopt.",
        )


class StorageNotConfigured(StorageError):
    """A row names a backend that the service is not set up for any more."""

    def __init__(self, backend: str) -> None:
        super().__init__(f"the storage {backend!r} is not configured")


@dataclass(frozen=True, slots=True)
class Blob:
    """Stored bytes being read: `first` is already here, `rest` follows (empty for a small file)."""

    first: bytes
    rest: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored file, as a listing shows it."""

    bucket: str
    key: str
    size_bytes: int
    modified: datetime


class Storage(Protocol):
    name: str

    async def put(self, bucket: str, key: str, source: Path) -> None:
        """Store a copy of `source`, replacing what was there. Durable when this returns. Raises StorageError."""

    async def remove(self, bucket: str, key: str) -> bool:
        """Remove it and whatever an interrupted `put` left; True if there was something. Raises StorageError."""

    async def read(self, bucket: str, key: str, start: int, length: int) -> Blob:
        """Read `length` bytes from `start`. Raises NotStored or StorageError."""

    async def size(self, bucket: str, key: str) -> int | None:
        """How many bytes are stored there; None: there is nothing. Raises StorageError."""

    async def fetch(self, bucket: str, key: str, target: Path, size: int) -> None:
        """Copy it into `target`, a new local file that only a success leaves. Raises NotStored or StorageError.

        `size` is what is expected, in bytes: a large file may take longer.
        """

    def everything(self) -> AsyncIterator[Stored]:
        """All that is stored but what `.health` holds, in no order and never all in memory.

        What an interrupted `put` left is listed too. Raises StorageError.
        """

    async def services(self) -> list[str]:
        """The ids of all services whose health check has ever put something here, where many may share a storage.

        Raises StorageError.
        """


@runtime_checkable
class Presigning(Protocol):
    """A storage that clients can fetch from themselves."""

    async def url(
        self, bucket: str, key: str, seconds: int, method: Literal["GET", "HEAD"] = "GET", *, private: bool = False
    ) -> str:
        """An address of it that is good for so many seconds, whether it is there or not. Raises StorageError.

        Fetched by a `private` one, only the client's own cache may keep it, and no longer than the address is good.
        """
