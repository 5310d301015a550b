"""API keys for the command line, from the running service or directly from the data folder."""

from typing import Any, Protocol

from ..access.token_limits import TokenLimits
from ..jobs.data_folder import DataFolder
from ..jobs.table.credentials import ApiKey
from ..settings import Settings
from .data_folder import with_data_folder
from .errors import CommandFailed
from .service_client import Running, running, segment

KEYS = "/api/v1/operator/keys"


class Keys(Protocol):
    """The source of keys. Every method may raise CommandFailed."""

    def created(self, name: str, sub: str, org: str, permissions: list[str], narrower: TokenLimits) -> str: ...
    def listed(self) -> list[dict[str, Any]]: ...
    def revoke(self, key_id: str) -> None: ...


class OfService:
    """Through the operator's API of the running service."""

    def __init__(self, service: Running) -> None:
        self._service = service

    def created(self, name: str, sub: str, org: str, permissions: list[str], narrower: TokenLimits) -> str:
        limits = narrower.model_dump(mode="json", exclude_none=True)
        wanted = {"name": name, "sub": sub, "org": org, "permissions": permissions, "narrower": limits}
        return str(self._service.call("POST", KEYS, json=wanted)["key"])

    def listed(self) -> list[dict[str, Any]]:
        return list(self._service.call("GET", KEYS)["keys"])

    def revoke(self, key_id: str) -> None:
        self._service.call("DELETE", f"{KEYS}/{segment(key_id)}")


class OfDataFolder:
    """From the data folder, which is locked for that time: a starting service waits for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def created(self, name: str, sub: str, org: str, permissions: list[str], narrower: TokenLimits) -> str:
        async def work(data: DataFolder) -> str:
            return (await data.credentials.create_key(name, org, sub, tuple(permissions), narrower))[0]

        return with_data_folder(self._settings, work)

    def listed(self) -> list[dict[str, Any]]:
        async def work(data: DataFolder) -> list[dict[str, Any]]:
            return [_shown(key) for key in await data.credentials.keys()]

        return with_data_folder(self._settings, work)

    def revoke(self, key_id: str) -> None:
        async def work(data: DataFolder) -> None:
            if not await data.credentials.revoke_key(key_id.lower()):
                raise CommandFailed("API key not found")

        with_data_folder(self._settings, work)


def _shown(key: ApiKey) -> dict[str, Any]:
    """As the service's API shows it."""
    return {
        "key_id": key.key_id,
        "name": key.name,
        "sub": key.user_id,
        "org": key.org_id,
        "permissions": list(key.permissions),
        "narrower": key.narrower.model_dump(mode="json", exclude_none=True),
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }


def keys_of(settings: Settings) -> Keys:
    """Raises CommandFailed."""
    service = running(settings)
    return OfService(service) if service else OfDataFolder(settings)
