"""Opens the storages that the settings name."""

import importlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NoReturn, cast

import anyio.to_thread

from ..lazy_dataclass import dataclass
from ..settings import Settings
from .base import Presigning, Receiving, Storage, StorageNotConfigured
from .bounded_memory import BoundedMemory
from .instrumented import OnOperation, instrumented
from .local import LocalStorage
from .reading_group import group_id
from .variant_memory import VariantMemory


class UnconfiguredStorage:
    """Stands in for a backend that rows name but the settings do not: every method raises StorageNotConfigured."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, method: str) -> NoReturn:
        raise StorageNotConfigured(self.name)


class Storages(dict[str, Storage]):
    """{name: storage} of all that are configured. One that is not is there too, and fails."""

    def __missing__(self, name: str) -> Storage:
        return cast(Storage, UnconfiguredStorage(name))


@dataclass(frozen=True, slots=True)
class StorageRegistry:
    """All storages, the active one for new uploads, and the memory.

    `presigning` are those from which clients can fetch directly, `receiving` those into which render machines can put.
    """

    storages: Storages
    active: Storage
    presigning: Mapping[str, Presigning]
    receiving: Mapping[str, Receiving]
    variants: VariantMemory


@asynccontextmanager
async def storage_registry(
    settings: Settings,
    on_operation: OnOperation | None = None,
    double: Storage | None = None,
    others: Sequence[Storage] = (),
    *,
    instance: str | None = None,
    memory: BoundedMemory | None = None,
) -> AsyncIterator[StorageRegistry]:
    """Open the storages; S3 only if it has a bucket. The local folder must contain the ID `instance`.

    `on_operation` is called for every operation. `double` replaces the active storage, and `others` are added.
    `memory` keeps small variants; None: nothing does.
    Raises SettingsError.
    """
    variants = VariantMemory(memory or BoundedMemory(0))
    async with AsyncExitStack() as stack:
        gid = group_id(settings.storage.group) if settings.storage.group else None
        found: dict[str, Storage] = {"local": LocalStorage(settings.storage.path, instance, gid)}
        if settings.s3.bucket:
            module = await anyio.to_thread.run_sync(importlib.import_module, f"{__package__}.s3")
            found["s3"] = await stack.enter_async_context(module.s3_storage(settings.s3))
        found.update((other.name, other) for other in others)
        active = double.name if double else settings.storage.backend
        if double:
            found[active] = double
        storages = Storages(
            {
                name: instrumented(one, on_operation, variants.forget) if on_operation else one
                for name, one in found.items()
            }
        )
        presigning = {name: one for name, one in found.items() if isinstance(one, Presigning)}
        receiving = {name: one for name, one in found.items() if isinstance(one, Receiving)}
        yield StorageRegistry(storages, storages[active], presigning, receiving, variants)
