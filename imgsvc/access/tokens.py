"""Bearer tokens: JWT (RFC 7519), signed with HMAC (RFC 7518). `alg` comes from configuration, never from the token."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import OctKey

from ..settings import Settings
from .secrets import own_secret

DEFAULT_ORG = "default-org"
MAX_TOKEN_CHARACTERS = 8192
MAX_NAME_CHARACTERS = 255
SECRET_FILE = "jwt_secret"  # noqa: S105, a file name


class TokenInvalid(Exception):
    """The token can't be trusted, whatever the reason."""


class TokenExpired(TokenInvalid):
    """The token was good once."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token speaks for."""

    user_id: str
    org_id: str
    permissions: tuple[str, ...] = ()


class Tokens:
    def __init__(self, secret: str, algorithm: str) -> None:
        self._key = OctKey.import_key(secret)
        self._algorithm = algorithm

    @classmethod
    def of(cls, settings: Settings) -> "Tokens":
        """With the configured secret, or the one in the data folder, which is made if there is none."""
        configured = settings.auth.jwt_secret_key.get_secret_value()
        return cls(configured or own_secret(settings.data, SECRET_FILE), settings.auth.jwt_algorithm)

    def issue(
        self, user_id: str, org_id: str = DEFAULT_ORG, permissions: Sequence[str] = (), ttl_seconds: int = 3600
    ) -> str:
        """A token that is good for `ttl_seconds` from now."""
        issued = int(time.time())
        claims: dict[str, Any] = {"sub": user_id, "org_id": org_id, "iat": issued, "exp": issued + ttl_seconds}
        if permissions:
            claims["permissions"] = list(permissions)
        return jwt.encode({"alg": self._algorithm, "typ": "JWT"}, claims, self._key, algorithms=[self._algorithm])

    def verify(self, token: str) -> Identity:
        """Raises TokenExpired or TokenInvalid."""
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise TokenInvalid
        try:
            claims = jwt.decode(token, self._key, algorithms=[self._algorithm]).claims
            # joserfc checks exp and nbf only here, and only as whole or fractional seconds.
            # iat is left out: an issuer whose clock is a little ahead must not lock its users out.
            checked = {name: value for name, value in claims.items() if name != "iat"}
            jwt.JWTClaimsRegistry(sub={"essential": True}).validate(checked)
        except ExpiredTokenError:
            raise TokenExpired from None
        except (JoseError, ValueError, TypeError, OverflowError, RecursionError, UnicodeError):
            raise TokenInvalid from None
        return _identity(claims)


def _identity(claims: dict[str, Any]) -> Identity:
    user, org, permissions = claims["sub"], claims.get("org_id"), claims.get("permissions")
    org = DEFAULT_ORG if org is None else org
    permissions = [] if permissions is None else permissions
    for name in (user, org):
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
            raise TokenInvalid
    if not isinstance(permissions, list) or not all(isinstance(one, str) for one in permissions):
        raise TokenInvalid
    return Identity(user, org, tuple(permissions))
