"""What an identity may do: by being known at all, by its token's claims, or by asking an authorization service."""

import math
from typing import Literal, Protocol

from .tokens import Identity

UPLOAD, DELETE, READ, ADMIN = "image:upload", "image:delete", "image:read", "image:admin"
Mode = Literal["none", "claims", "remote"]


class PermissionDenied(Exception):
    """The identity may not do this."""

    def __init__(self, permission: str) -> None:
        super().__init__(permission)
        self.permission = permission


class AuthorizationUnavailable(Exception):
    """Nobody can tell now whether the identity may. `retry_after` is in seconds."""

    def __init__(self, retry_after: float = 5) -> None:
        super().__init__("the authorization service can't be asked")
        self.retry_after = max(1, math.ceil(retry_after))


class Unavailable(Exception):
    """Nobody can say whether it is allowed; trying again makes sense after `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the authorization server is away")
        self.retry_after = retry_after


class Authorization(Protocol):
    """Whoever decides in the mode `remote`."""

    async def allowed(self, org_id: str, user_id: str, permission: str) -> bool:
        """Raises Unavailable."""
        ...


class Permissions:
    """`remote` is asked in the mode of that name only; when it is missing there, nothing is allowed."""

    def __init__(self, mode: Mode = "none", remote: Authorization | None = None) -> None:
        self.mode = mode
        self._remote = remote

    async def require(self, identity: Identity, permission: str) -> None:
        """Raises PermissionDenied or AuthorizationUnavailable.

        In the mode `none` who is known may do everything with what is their own; nobody may do what only admins do.
        """
        allowed = permission != ADMIN if self.mode == "none" else await self.holds(identity, permission)
        if not allowed:
            raise PermissionDenied(permission)

    async def require_to_delete(self, identity: Identity, *, own: bool) -> None:
        """For an image of the identity's org. Raises PermissionDenied (of image:delete) or AuthorizationUnavailable.

        Where permissions are given out, one's own image takes image:delete: a list that grants the upload and leaves
        this out means it. An image:admin may delete every image of the org.
        """
        if self.mode == "none":
            allowed = own
        else:
            allowed = (own and await self.holds(identity, DELETE)) or await self.holds(identity, ADMIN)
        if not allowed:
            raise PermissionDenied(DELETE)

    async def holds(self, identity: Identity, permission: str) -> bool:
        """Whether it was granted, by the signed claim or by the service that is asked. Raises AuthorizationUnavailable.

        In the mode `none` too the claim is as the issuer signed it: it shows an admin whose an image is, no more.
        """
        if self.mode != "remote":
            return permission in identity.permissions
        if self._remote is None:
            raise AuthorizationUnavailable
        try:
            return await self._remote.allowed(identity.org_id, identity.user_id, permission)
        except Unavailable as error:
            raise AuthorizationUnavailable(error.retry_after) from None
