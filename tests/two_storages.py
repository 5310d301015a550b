"""`imgsvc` with a second backend beside its own: the folder `other` beside its storage folder.

python -m tests.two_storages serve
"""

from contextlib import AbstractAsyncContextManager

from starlette.applications import Starlette

from imgsvc.settings import Settings
from imgsvc.storage.base import Storage
from imgsvc.storage.configured import Configured, configured


def other(settings: Settings) -> Storage:
    from tests.upkeep import Other

    return Other(settings.storage.path.parent / "other")


def with_other(settings: Settings) -> Starlette:
    from imgsvc.app import Doubles, create_app

    return create_app(settings, Doubles(others=(other(settings),)))


def both(settings: Settings) -> AbstractAsyncContextManager[Configured]:
    return configured(settings, others=[other(settings)])


def main() -> None:
    from imgsvc import cli, server
    from imgsvc.commands import upkeep_alone

    setattr(server, "create_app", with_other)  # noqa: B010
    setattr(upkeep_alone, "configured", both)  # noqa: B010
    cli.main()


if __name__ == "__main__":
    main()
