"""Permissions of an identity: by any valid token, by the token's claims, or by an authorization service."""

import math
from typing import Literal, Protocol

from .tokens import Identity

UPLOAD, UPDATE, DELETE, READ = "image:upload", "image:update", "image:delete", "image:read"
ADMIN = "image:admin"
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
        permissions. An API key may do what its own list says, in every mode.
        """
        if self.mode == "none" and identity.key_id is None:
            allowed = permission != ADMIN
        else:
            allowed = await self.holds(identity, permission)
        if not allowed:
            raise PermissionDenied(permission)

    async def require_to_delete(self, identity: Identity, *, own: bool) -> None:
        """Check a deletion in the user's org. Raises PermissionDenied (of image:delete) or AuthorizationUnavailable.

        In the modes `claims` and `remote` deleting one's own image requires image:delete: a list that grants uploads
        only does so deliberately. An image:admin may delete every image of the organisation.
        """
        if self.mode == "none" and identity.key_id is None:
            allowed = own
        else:
            allowed = (own and await self.holds(identity, DELETE)) or await self.holds(identity, ADMIN)
        if not allowed:
            raise PermissionDenied(DELETE)

    async def require_to_update(self, identity: Identity, *, own: bool) -> None:
        """Check a change of an image in the user's org. Raises PermissionDenied or AuthorizationUnavailable.

        Another user's image requires image:admin besides, which no user has in the mode `none`.
        """
        await self.require(identity, UPDATE)
        if not own:
            await self.require(identity, ADMIN)

    async def require_to_read_source(self, identity: Identity, *, own: bool) -> None:
        """Check reading a kept source in the user's org. Raises as `require_to_update`, which it is like."""
        await self.require(identity, READ)
        if not own:
            await self.require(identity, ADMIN)

    async def holds(self, identity: Identity, permission: str) -> bool:
        """Whether the permission was granted, by the signed claim or by the service. Raises AuthorizationUnavailable.

        The mode `none` uses the signed claim too: it only shows an admin whose image it is.
        """
        if self.mode != "remote" or identity.key_id is not None:
            return permission in identity.permissions
        if self._remote is None:
            raise AuthorizationUnavailable
        try:
            return await self._remote.allowed(identity.org_id, identity.user_id, permission)
        except Unavailable as error:
            raise AuthorizationUnavailable(error.retry_after) from None
