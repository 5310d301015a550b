"""`imgsvc` with a second backend beside its own: the folder `other` beside its storage folder.

python -m tests.two_storages serve
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from imgsvc.settings import Settings
from imgsvc.storage.base import Storage
from imgsvc.storage.local import LocalStorage


def other(settings: Settings) -> Storage:
    from tests.upkeep import Other

    return Other(settings.storage.path.parent / "other")


def with_other(settings: Settings) -> Starlette:
    from imgsvc.app import Doubles, create_app

    return create_app(settings, Doubles(others=(other(settings),)))


@asynccontextmanager
async def both(settings: Settings) -> AsyncIterator[Mapping[str, Storage]]:
    yield {"local": LocalStorage(settings.storage.path), "other": other(settings)}


def main() -> None:
    from imgsvc import cli, server
    from imgsvc.commands import storage

    setattr(server, "create_app", with_other)  # noqa: B010
    setattr(storage, "configured", both)  # noqa: B010
    cli.main()


if __name__ == "__main__":
    main()
