"""Webhooks for the command line, through the running service or directly in the data folder."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ..jobs import webhook_views as views
from ..jobs.data_folder import DataFolder
from ..settings import Settings
from .data_folder import with_data_folder
from .errors import CommandFailed
from .service_client import running, segment

T = TypeVar("T")
PATH = "/api/v1/operator/webhooks"


def listed(settings: Settings) -> list[dict[str, Any]]:
    """Raises CommandFailed."""
    service = running(settings)
    if service:
        return list(service.call("GET", PATH)["webhooks"])
    found = _with_data(settings, lambda data: views.listed(data.webhooks))
    return [one.model_dump() for one in found.webhooks]


def logged(settings: Settings, name: str, limit: int) -> list[dict[str, Any]]:
    """Raises CommandFailed."""
    service = running(settings)
    if service:
        path = f"{PATH}/{segment(name)}/attempts"
        return list(service.call("GET", path, params={"limit": limit})["attempts"])
    found = _with_data(settings, lambda data: views.logged(data.webhooks, name, limit))
    return [one.model_dump() for one in found.attempts]


def replay(settings: Settings, name: str, wanted: views.ReplayRequest) -> int:
    """The number of deliveries that wait again. Raises CommandFailed."""
    service = running(settings)
    if service:
        body = wanted.model_dump(mode="json")
        return int(service.call("POST", f"{PATH}/{segment(name)}/replay", json=body)["replayed"])
    return _with_data(settings, lambda data: views.replay(data.webhooks, name, wanted)).replayed


def enable(settings: Settings, name: str) -> bool:
    """Whether it was switched off. Raises CommandFailed."""
    service = running(settings)
    if service:
        return bool(service.call("POST", f"{PATH}/{segment(name)}/enable")["was_off"])
    return _with_data(settings, lambda data: views.enable(data.webhooks, name)).was_off


def test(settings: Settings, name: str) -> dict[str, Any]:
    """What came back. Raises CommandFailed."""
    service = running(settings)
    if service is None:
        raise CommandFailed("no service runs on this data folder: a test is sent by the running service")
    return service.call("POST", f"{PATH}/{segment(name)}/test")


def _with_data(settings: Settings, work: Callable[[DataFolder], Awaitable[T]]) -> T:
    async def known(data: DataFolder) -> T:
        try:
            return await work(data)
        except views.NoSuchWebhook:
            raise CommandFailed("There is no webhook of this name") from None

    return with_data_folder(settings, known)
