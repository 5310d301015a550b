"""`imgsvc` with a second backend beside its own: the folder `other` beside its storage folder.

python -m tests.support.two_storages serve
"""

import os
import sys
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING

from imgsvc.settings import Settings
from imgsvc.storage.registry import StorageRegistry, storage_registry
from tests.support.other_storage import Other

if TYPE_CHECKING:
    from starlette.applications import Starlette

FETCH_HERE = "TESTS_FETCH_HERE"  # in the environment: uploads by address may come from this machine


def other(settings: Settings) -> Other:
    return Other(settings.storage.path.parent / "other")


def with_other(settings: Settings) -> "Starlette":
    from imgsvc.service.app import create_app
    from imgsvc.service.assembly import Doubles

    return create_app(settings, Doubles(others=(other(settings),)))


def both(settings: Settings, instance: str | None = None) -> AbstractAsyncContextManager[StorageRegistry]:
    return storage_registry(settings, others=[other(settings)], instance=instance)


def main() -> None:
    """Each command loads its own parts and no more, as it does without a second backend."""
    from imgsvc.cli import main

    if sys.argv[1] == "serve":
        from imgsvc.service import server

        setattr(server, "create_app", with_other)  # noqa: B010
        if os.environ.get(FETCH_HERE):
            from imgsvc.access.guarded_client import GuardedClient
            from imgsvc.service import assembly

            setattr(assembly, "GuardedClient", partial(GuardedClient, allow_private=True))  # noqa: B010
    else:
        from imgsvc.cli import maintenance_offline

        setattr(maintenance_offline, "storage_registry", both)  # noqa: B010
    main.main()


if __name__ == "__main__":
    main()
