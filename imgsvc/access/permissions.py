"""Who may do what: everybody with a token, as the token says, or as an authorization server says."""

from typing import Literal, Protocol

from .remote import Unavailable
from .tokens import Identity


class PermissionDenied(Exception):
    """The token is good, but its user may not do this."""

    def __init__(self, permission: str) -> None:
        super().__init__(f"Permission denied: {permission}")
        self.permission = permission


class AuthorizationUnavailable(Exception):
    """Nobody can say now; `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("Authorization service temporarily unavailable")
        self.retry_after = retry_after


class Remote(Protocol):
    async def allowed(self, org_id: str, user_id: str, permission: str) -> bool:
        """Raises Unavailable."""
        ...


class Permissions:
    def __init__(self, mode: Literal["none", "claims", "remote"], remote: Remote | None = None) -> None:
        self._mode = mode
        self._remote = remote

    async def require(self, identity: Identity, permission: str) -> None:
        """Raises PermissionDenied or AuthorizationUnavailable."""
        if self._mode == "none":
            return
        if self._mode == "claims":
            allowed = permission in identity.permissions
        else:
            assert self._remote is not None
            try:
                allowed = await self._remote.allowed(identity.org_id, identity.user_id, permission)
            except Unavailable as error:
                raise AuthorizationUnavailable(error.retry_after) from None
        if not allowed:
            raise PermissionDenied(permission)
