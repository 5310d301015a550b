"""What render machines put into a storage by themselves: a folder of the bucket `incoming` for each run.

A machine gets a signed address for one variant of one run, of exactly its size. What it has put there is read again by
this service, checked, and then copied by the store to its place; nothing in `incoming` is ever served. The folder is
removed when its run ends. What comes later, from a machine that was cut off, has no run: housekeeping removes that.
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import anyio
import structlog

from ..storage.base import INCOMING, Original, Receiving, SignedPut, StorageError, Stored
from ..storage.keys import IncomingName
from .lanes.messages import VariantMade
from .table.job_table import JobTable
from .table.model import now

log = structlog.get_logger()

DROP_SECONDS = 20.0  # a storage that hangs must not delay the end of a run: housekeeping goes on
FOREIGN_KEPT = timedelta(days=1)  # of a run that is none of ours: another service may share the bucket
TOGETHER = 100  # files whose rows are read in one query


class IncomingRun:
    """The folder of one run. `name` is that of its scratch folder, which no other run has."""

    def __init__(self, name: str, storage: Receiving) -> None:
        self.name = name
        self.addressed: set[str] = set()  # the variants that a machine has asked an address for
        self.taken: set[str] = set()  # those that were read from there, and are whole
        self._storage = storage

    def key(self, variant: str) -> str:
        return f"{self.name}/{variant}"

    async def address(self, variant: str, size: int, seconds: int) -> SignedPut:
        """Where a machine may put a variant of so many bytes. Raises StorageError."""
        self.addressed.add(variant)
        return await self._storage.put_address(self.key(variant), size, seconds)

    async def take(self, made: VariantMade, target: Path) -> None:
        """Read a variant into a new file. Raises NotStored, Differs if it has another size, StorageError or OSError."""
        await self._storage.take(self.key(made.name), target, made.size_bytes)
        self.taken.add(made.name)

    def original(self, made: VariantMade) -> Original | None:
        """The file that the store may copy to the variant's place; None: it came another way."""
        if made.name not in self.taken:
            return None
        return Original(INCOMING, self.key(made.name), made.size_bytes, made.sha256)

    async def drop(self) -> None:
        """Remove what was put. Raises StorageError."""
        for variant in sorted(self.addressed):
            await self._storage.drop(self.key(variant))


class Incoming:
    """The folders of all runs that are under way. `receiving`: the storages that machines can put into, by name."""

    def __init__(self, receiving: Mapping[str, Receiving] | None = None) -> None:
        self._receiving = receiving or {}
        self._runs: dict[str, IncomingRun] = {}

    def begin(self, name: str, backend: str) -> None:
        """A run goes to its lane, whose image is in this backend."""
        if backend in self._receiving:
            self._runs[name] = IncomingRun(name, self._receiving[backend])

    def of(self, name: str) -> IncomingRun | None:
        """The folder of a run; None where its storage takes nothing from machines."""
        return self._runs.get(name)

    async def end(self, name: str) -> None:
        """The run is recorded: remove what it has there."""
        run = self._runs.get(name)
        try:
            if run is not None and run.addressed:
                with anyio.move_on_after(DROP_SECONDS):
                    await run.drop()
        except StorageError as error:
            log.warning("incoming_not_removed", run=name, reason=str(error))
        finally:
            self._runs.pop(name, None)

    async def tidy(self, table: JobTable, *, clocks_agree: bool) -> None:
        """Remove what no run that is under way has put. What is of another service stays for a day."""
        for storage in self._receiving.values():
            batch: list[Stored] = []
            async for stored in storage.incoming():
                batch.append(stored)
                if len(batch) == TOGETHER:
                    await self._tidy(storage, batch, table, clocks_agree=clocks_agree)
                    batch.clear()
            await self._tidy(storage, batch, table, clocks_agree=clocks_agree)

    async def _tidy(self, storage: Receiving, batch: list[Stored], table: JobTable, *, clocks_agree: bool) -> None:
        names = {one.key: name for one in batch if (name := IncomingName.of(one.key))}
        known = await table.files.wanting_source({name.job_id for name in names.values()})
        for one in batch:
            name = names.get(one.key)
            if name is None or name.run in self._runs:
                continue
            if name.job_id in known or (clocks_agree and one.modified < now() - FOREIGN_KEPT):
                await storage.drop(one.key)
                log.info("late_variant_removed", job_id=name.job_id, run=name.run)
