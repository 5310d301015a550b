"""The runs whose tickets are out: what a render machine may read and put while its run is not over.

A token alone opens nothing. Its run must be open here, in this process, and it is closed in the same step in which the
run ends on its lane, whether it was answered, lost, deleted or given to another: what comes later is refused.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import anyio

from ..incoming import IncomingRun
from ..lanes.messages import VariantMade
from ..rendered_files import checked_file

NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class RunOver(Exception):
    """The run has ended."""


class HasVariant(Exception):
    """The variant was put already, or is being put."""


class NotPut(Exception):
    """The machine has put no such variant, neither here nor into the storage."""


class OpenTicket:
    """One run. `size` are the bytes of its source, `largest` the variants that may be put, with the most bytes of each.

    A variant is written where it is published from: as the `checked_file` of `copies`. Nothing writes to it again once
    it is received: it is closed by then, and no other request may put it.
    `incoming`: where they may be put into the storage. `on_answer` gets the machine's answer, unread.
    """

    def __init__(
        self,
        source: Path,
        size: int,
        copies: Path,
        largest: Mapping[str, int],
        incoming: IncomingRun | None = None,
        on_answer: Callable[[str], None] = lambda _answer: None,
    ) -> None:
        self.source = source
        self.size = size
        self.largest = largest
        self.incoming = incoming
        self.on_answer = on_answer
        self.is_begun = False  # a machine has asked for the source
        self._copies = copies
        self._variants: dict[str, Literal["receiving", "received"]] = {}
        self._scopes: set[anyio.CancelScope] = set()  # of the requests that are under way
        self._over = False

    @property
    def is_over(self) -> bool:
        return self._over

    @property
    def received(self) -> set[str]:
        return {name for name, state in self._variants.items() if state == "received"}

    def close(self) -> None:
        """End the run: requests that are under way are cancelled, later ones refused."""
        self._over = True
        for scope in self._scopes:
            scope.cancel()

    def check(self, variant: str) -> None:
        """Raises RunOver or HasVariant."""
        if self._over:
            raise RunOver
        if variant in self._variants:
            raise HasVariant

    async def take(self, made: VariantMade) -> None:
        """Read what the machine put into the storage. Raises NotPut, NotStored, Differs, StorageError or OSError."""
        if self.incoming is None or made.name not in self.incoming.addressed:
            raise NotPut
        if made.size_bytes > self.largest.get(made.name, 0):
            raise NotPut
        await self.incoming.take(made, checked_file(self._copies, made.name))

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Cancel what is done inside when the run ends. Raises RunOver."""
        if self._over:
            raise RunOver
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught or self._over:  # a visit to a thread is not cancelled
            raise RunOver

    @contextmanager
    def receiving(self, sizes: Mapping[str, int]) -> Iterator["IncomingVariants"]:
        """Take variants in, of so many bytes. Unless they were finished inside, nothing is left of them.

        Raises RunOver or HasVariant.
        """
        for variant in sizes:
            self.check(variant)
        self._variants |= dict.fromkeys(sizes, "receiving")
        incoming = IncomingVariants([(checked_file(self._copies, name), size) for name, size in sizes.items()])
        try:
            with self.under_way():
                yield incoming
        finally:
            for variant in sizes:
                if incoming.finished and not self._over:
                    self._variants[variant] = "received"
                else:
                    del self._variants[variant]


class IncomingVariants:
    """Variants that come one after the other, being written to the scratch folder: all stay there, or none.

    They have their names at once: a file counts only once its ticket has it as received.

    `files`: each with its bytes. What comes after them is the machine's `answer`.
    The methods block, so call them in a thread.
    """

    def __init__(self, files: Sequence[tuple[Path, int]]) -> None:
        self.finished = False
        self.answer = b""
        self._files = files

    def write(self, data: bytes, offset: int) -> None:
        """Write bytes at an offset of all together.

        Raises OSError; FileNotFoundError if the scratch folder is gone.
        """
        start = 0
        for path, size in self._files:
            piece = data[max(0, start - offset) : max(0, start + size - offset)]
            if piece or not size:
                _write(path, piece, max(0, offset - start))
            start += size
        self.answer += data[max(0, start - offset) :]

    def finish(self, data: bytes, offset: int) -> None:
        """Write the last bytes. Raises OSError."""
        self.write(data, offset)
        self.finished = True

    def discard(self) -> None:
        for path, _ in self._files:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _write(path: Path, data: bytes, offset: int) -> None:
    flags = NEW_FLAGS if offset == 0 else NEW_FLAGS & ~(os.O_CREAT | os.O_TRUNC)
    descriptor = os.open(path, flags, 0o666)  # the mode of any new file: it may become the stored one
    try:
        while data:
            written = os.pwrite(descriptor, data, offset)
            data, offset = data[written:], offset + written
    finally:
        os.close(descriptor)


class OpenTickets:
    """All runs whose tickets are out, by their tokens: only the very token that was issued for a run opens it."""

    def __init__(self) -> None:
        self.sent_bytes = self.received_bytes = 0  # of sources and of variants, since the start
        self._open: dict[str, OpenTicket] = {}

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def opened(self, token: str, ticket: OpenTicket) -> Iterator[None]:
        """Keep a run open while its ticket is out."""
        self._open[token] = ticket
        try:
            yield
        finally:
            ticket.close()
            del self._open[token]

    def find(self, token: str) -> OpenTicket:
        """The run of a token whose signature holds. Raises RunOver."""
        try:
            return self._open[token]
        except KeyError:
            raise RunOver from None
