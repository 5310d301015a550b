"""The interface of a storage backend. A backend works with buckets and keys and does not depend on jobs."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from ..lazy_dataclass import dataclass

HEALTH = ".health"  # the bucket of probes, or the first segment of their buckets: not listed, and not tried again
INCOMING = "incoming"  # the bucket of what render machines put by themselves: RUN/VARIANT, never listed or served
HOUR, YEAR = 3600, 31_536_000  # seconds
IMMUTABLE = f"public, max-age={YEAR}, immutable"  # Cache-Control of files that never change
CHECKED_HOURLY = f"public, max-age={HOUR}"  # of what a URL without a version leads to
LOCAL = "local"  # the name of the backend that stores variants as files in one folder


class StorageError(Exception):
    """The backend could not do it now. The message may be logged but not sent to a client.

    `plain` is a reason that may be shown to anyone, or empty.
    """

    def __init__(self, message: str, plain: str = "") -> None:
        super().__init__(message)
        self.plain = plain


class NotStored(StorageError):
    """Nothing is stored under this key."""


class StorageBusy(StorageError):
    """The backend is busy, for example because this process has run out of open files.

    The put is repeated later and does not count as an attempt of its job.
    """


class Differs(StorageError):
    """What is stored has other bytes than its row says."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} has other bytes than its row says")


class PlaceTaken(StorageError):
    """Another image's file is in the way: nothing can be stored under this bucket and key while it is there."""


class StorageAway(StorageBusy):
    """The folder is missing or lacks this service's ID: most likely its disk is not mounted."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            "The storage folder does not contain this service's ID. Is its disk mounted? "
            "For a new folder: imgsvc storage adopt.",
        )


class StorageNotConfigured(StorageError):
    """A row names a backend that is no longer configured."""

    def __init__(self, backend: str) -> None:
        super().__init__(f"the storage {backend!r} is not configured")


def is_probe(bucket: str) -> bool:
    """Whether the bucket holds a probe of a health check, of `imgsvc doctor` for one."""
    return bucket.split("/", 1)[0] == HEALTH


@dataclass(frozen=True, slots=True)
class Blob:
    """Stored bytes being read: `first` is in memory, `rest` yields the remaining bytes (none for a small file).

    `rest` must be iterated to its end or closed.
    """

    first: bytes
    rest: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Original:
    """A stored file that is to be copied: its size in bytes and its SHA-256 in hex, as its row says them."""

    bucket: str
    key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored file as listed."""

    bucket: str
    key: str
    size_bytes: int
    modified: datetime


class Storage(Protocol):
    name: str

    async def put(self, bucket: str, key: str, source: Path) -> None:
        """Store a copy of `source`, replacing an earlier file. Durable once this returns. Raises StorageError."""

    async def remove(self, bucket: str, key: str) -> bool:
        """Remove the file and remains of an interrupted `put`; returns whether it existed. Raises StorageError."""

    async def read(self, bucket: str, key: str, start: int, length: int) -> Blob:
        """Read `length` bytes from `start`. Raises NotStored or StorageError."""

    async def size(self, bucket: str, key: str) -> int | None:
        """The size in bytes; None if nothing is stored there. Raises StorageError."""

    async def fetch(self, bucket: str, key: str, target: Path, size: int) -> None:
        """Copy the file into `target`, a new local file that exists only on success. Raises NotStored or StorageError.

        `size` is the expected size in bytes: a larger file may take longer.
        """

    def everything(self) -> AsyncIterator[Stored]:
        """All stored files except those in `.health`, in no particular order, read page by page.

        Files that an interrupted `put` left are included. Raises StorageError.
        """


@runtime_checkable
class PuttingTogether(Protocol):
    """A storage that stores several files for little more than what one costs."""

    async def put_all(self, bucket: str, sources: Mapping[str, Path]) -> None:
        """`put` each {key: source}; the sources, which nothing may write to any more, may be linked instead of copied.

        After an error each of them is stored or not. Raises StorageError.
        """

    async def copy_all(self, bucket: str, originals: Mapping[str, "Original"]) -> None:
        """`copy` each {key: original}. After an error each of them is stored or not.

        Raises NotStored, Differs or StorageError.
        """


@runtime_checkable
class Copying(Protocol):
    """A storage that can make a copy by itself."""

    async def copy(self, bucket: str, key: str, original: Original) -> None:
        """Store the same bytes under another name too, replacing an earlier file. Durable once this returns.

        Each of the two can be replaced or removed without the other. Raises NotStored, Differs or StorageError.
        """


@runtime_checkable
class SharedStorage(Protocol):
    """A storage that several services may share, and that charges for each request."""

    probe_interval: float  # seconds between two complete probes of the health check; in between it only reads

    async def services(self) -> list[str]:
        """The IDs of all services whose health check has ever stored a probe here. Raises StorageError."""


@runtime_checkable
class Presigning(Protocol):
    """A storage from which clients can fetch files directly."""

    async def url(
        self, bucket: str, key: str, seconds: int, method: Literal["GET", "HEAD"] = "GET", *, private: bool = False
    ) -> str:
        """A signed URL of the file, valid for `seconds` if its credentials are; the file need not exist.

        Raises StorageError.

        With `private`, the response to the URL may be cached by the client only, until the URL expires.
        """

    async def url_seconds(self, seconds: int) -> int:
        """How long a URL signed now for `seconds` is valid: no longer than the credentials. Raises StorageError."""


@dataclass(frozen=True, slots=True)
class SignedPut:
    """Where one file of a known size may be put, and the headers that the request must have."""

    address: str
    headers: Mapping[str, str]


@runtime_checkable
class Receiving(Protocol):
    """A storage into which render machines can put files: their keys are in the bucket INCOMING, and nowhere else."""

    async def put_address(self, key: str, size: int, seconds: int) -> SignedPut:
        """A signed address for a PUT of exactly `size` bytes, valid for `seconds`. Raises StorageError."""

    async def take(self, key: str, target: Path, size: int) -> None:
        """Copy the file, which should have `size` bytes, into `target`, a new local file; no byte more is read.

        Raises NotStored, Differs or StorageError; `target` exists only on success.
        """

    async def drop(self, key: str) -> None:
        """Remove the file, if it is there. Raises StorageError."""

    def incoming(self) -> AsyncIterator[Stored]:
        """All such files, in no particular order. Raises StorageError."""
