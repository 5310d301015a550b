"""Permissions of an identity: by any valid token, by the token's claims, or by an authorization service."""

import math
from typing import Literal, Protocol

from .tokens import Identity

UPLOAD, DELETE, READ, ADMIN = "image:upload", "image:delete", "image:read", "image:admin"
UPDATE = "image:update"
Mode = Literal["none", "claims", "remote"]


class PermissionDenied(Exception):
    """The identity lacks the permission."""

    def __init__(self, permission: str) -> None:
        super().__init__(permission)
        self.permission = permission


class AuthorizationUnavailable(Exception):
    """The permission can't be checked now. `retry_after` is in seconds."""

    def __init__(self, retry_after: float = 5) -> None:
        super().__init__("the authorization service can't be asked")
        self.retry_after = max(1, math.ceil(retry_after))


class Unavailable(Exception):
    """The authorization server did not decide; a retry makes sense after `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the authorization server is away")
        self.retry_after = retry_after


class Authorization(Protocol):
    """The decision service of permission mode `remote`."""

    async def allowed(self, org_id: str, user_id: str, permission: str) -> bool:
        """Raises Unavailable."""
        ...


class Permissions:
    """`remote` is used in the mode `remote` only; if it is missing there, nothing is allowed."""

    def __init__(self, mode: Mode = "none", remote: Authorization | None = None) -> None:
        self.mode = mode
        self._remote = remote

    async def require(self, identity: Identity, permission: str) -> None:
        """Check a permission. Raises PermissionDenied or AuthorizationUnavailable.

        In the mode `none` every valid token may do everything to its own images, and no token has an admin's
        permissions.
        """
        allowed = permission != ADMIN if self.mode == "none" else await self.holds(identity, permission)
        if not allowed:
            raise PermissionDenied(permission)

    async def require_to_change(self, identity: Identity, *, own: bool) -> None:
        """Check a change in the user's org. Raises PermissionDenied (of image:update) or AuthorizationUnavailable."""
        await self._require_of_image(identity, UPDATE, own=own)

    async def require_to_delete(self, identity: Identity, *, own: bool) -> None:
        """Check a deletion in the user's org. Raises PermissionDenied (of image:delete) or AuthorizationUnavailable.

        In the modes `claims` and `remote` deleting one's own image requires image:delete: a list that grants uploads
        only does so deliberately. An image:admin may delete every image of the organisation.
        """
        await self._require_of_image(identity, DELETE, own=own)

    async def _require_of_image(self, identity: Identity, permission: str, *, own: bool) -> None:
        if self.mode == "none":
            allowed = own
        else:
            allowed = (own and await self.holds(identity, permission)) or await self.holds(identity, ADMIN)
        if not allowed:
            raise PermissionDenied(permission)

    async def holds(self, identity: Identity, permission: str) -> bool:
        """Whether the permission was granted, by the signed claim or by the service. Raises AuthorizationUnavailable.

        The mode `none` uses the signed claim too: it only shows an admin whose image it is.
        """
        if self.mode != "remote":
            return permission in identity.permissions
        if self._remote is None:
            raise AuthorizationUnavailable
        try:
            return await self._remote.allowed(identity.org_id, identity.user_id, permission)
        except Unavailable as error:
            raise AuthorizationUnavailable(error.retry_after) from None
