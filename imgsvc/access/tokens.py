"""Bearer tokens: JWT (RFC 7519), checked as RFC 8725 recommends. `alg` and keys come from the settings only."""

import hashlib
import time
from collections.abc import Sequence
from math import inf
from typing import Any

from cachetools import LRUCache
from joserfc import jwt
from joserfc.errors import BadSignatureError, ClaimError, ExpiredTokenError, JoseError, UnsupportedAlgorithmError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry
from joserfc.util import json_b64decode

from ..lazy_dataclass import dataclass
from ..settings import Settings
from ..settings.auth import Auth
from .jwk import FixedKeys, Keys, key_of_file, secrets
from .secrets import own_secret
from .token_limits import UNTIGHTENED, TokenLimits

DEFAULT_ORG = "default-org"
MAX_TOKEN_BYTES = 16 * 1024
MAX_NAME_CHARACTERS = 255
REMEMBERED = 1000  # tokens that were checked; a check takes longer than all else before an upload's first byte
SHOWN_CHARACTERS = 100  # of a claim, in the log
SECRET_FILE = "jwt_secret"  # noqa: S105, a file name
TYPES = ("jwt", "at+jwt", "application/at+jwt")  # RFC 7519 section 5.1, RFC 9068 section 4; others are refused
ODD = (JoseError, ValueError, TypeError, KeyError, OverflowError, RecursionError, UnicodeError)


class TokenInvalid(Exception):
    """The token is not valid. The message is the reason, for the log only: it holds parts of the token's claims."""


class TokenExpired(TokenInvalid):
    """The token has expired."""


class TokenTooLong(TokenInvalid):
    """The token has more bytes than are accepted."""

    def __init__(self, limit: int, measured: int) -> None:
        super().__init__(f"it has {measured} bytes; [auth] max_token_kb accepts {limit}")
        self.limit, self.measured = limit, measured


class NotOurs(Exception):
    """The service can't issue tokens: it has only the issuer's public keys."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user and organisation of a token, its permissions, and its limits.

    `key_id`: the API key that it came by, itself or through a ticket; None: a JWT.
    """

    user_id: str
    org_id: str
    permissions: tuple[str, ...] = ()
    tightening: TokenLimits = UNTIGHTENED
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """Required claims beyond `sub`; an empty text requires nothing."""

    issuer: str = ""
    audience: str = ""
    leeway_seconds: int = 0

    def check(self, claims: dict[str, Any]) -> None:
        """Check exp, nbf, iss and aud. Raises TokenExpired or TokenInvalid, with the reason and by how much.

        iat is not checked: an issuer's clock may be slightly fast.
        """
        wanted = {name: {"essential": True, "value": text} for name, text in self.claims.items()}
        rules = jwt.JWTClaimsRegistry(leeway=self.leeway_seconds, sub={"essential": True}, **wanted)  # type: ignore[arg-type]
        try:
            rules.validate({name: value for name, value in claims.items() if name != "iat"})
        except ExpiredTokenError:
            raise TokenExpired(self._off("exp", "past", time.time() - claims["exp"])) from None
        except ClaimError as error:
            raise TokenInvalid(self._reason(error.claim, claims)) from None

    def _reason(self, claim: str, claims: dict[str, Any]) -> str:
        value = claims.get(claim)
        if claim == "nbf" and isinstance(value, int | float) and value > time.time():
            return self._off("nbf", "ahead", value - time.time())
        wanted = self.claims.get(claim)
        return f"{claim} is {_shown(value)}" + (f"; {wanted!r} is expected" if wanted else "")

    def _off(self, claim: str, where: str, seconds: float) -> str:
        return f"{claim} is {seconds:.1f} seconds {where}; [auth] leeway_seconds is {self.leeway_seconds}"

    @property
    def claims(self) -> dict[str, str]:
        """The required iss and aud, as a token contains them."""
        return {name: text for name, text in (("iss", self.issuer), ("aud", self.audience)) if text}


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that was checked, by whose digest it is remembered: its signature and claims stay as they are.

    Time goes on and keys are replaced, so both are looked at each time. Within the leeway it is checked anew.
    """

    kid: str | None
    key: Key
    identity: Identity
    begins: float
    ends: float

    @classmethod
    def of(cls, claims: dict[str, Any], kid: str | None, key: Key, identity: Identity) -> "_Verified":
        return cls(kid, key, identity, claims.get("nbf", -inf), claims.get("exp", inf))

    def holds(self, moment: float, keys: Sequence[Key]) -> bool:
        return self.begins <= moment < self.ends and any(key is self.key for key in keys)


class _OneAlgorithm(JWSRegistry):
    """Allows the configured algorithm only, and does not warn about its name: RFC 9864 renames EdDSA."""

    def __init__(self, algorithm: str, max_bytes: int) -> None:
        super().__init__(algorithms=[algorithm], strict_check_header=False)
        self.max_header_length = max_bytes  # of a part; the whole token has been measured before
        self._algorithm = algorithm

    def get_alg(self, name: str) -> Any:
        if name != self._algorithm:
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


class Tokens:
    """Issues and verifies tokens. `keys` is our own secret, or the source of an issuer's keys."""

    def __init__(
        self,
        keys: str | Keys,
        algorithm: str,
        expected: Expected | None = None,
        previous: str = "",
        max_bytes: int = MAX_TOKEN_BYTES,
    ) -> None:
        own = secrets(keys, previous) if isinstance(keys, str) else []
        self._signing = own[0] if own else None
        self._keys: Keys = FixedKeys(own) if isinstance(keys, str) else keys
        self._algorithm, self._algorithms = algorithm, _OneAlgorithm(algorithm, max_bytes)
        self._expected, self._max_bytes = expected or Expected(), max_bytes
        self._verified: LRUCache[bytes, _Verified] = LRUCache(REMEMBERED)

    @classmethod
    def of(cls, settings: Settings) -> "Tokens":
        """Use the configured keys, or the secret in the data folder, created if there is none. Raises SettingsError."""
        auth = settings.auth
        expected = Expected(auth.issuer, auth.audience, auth.leeway_seconds)
        most = settings.max_token_bytes
        if not auth.own_keys:
            return cls(_public_keys(auth), auth.jwt_algorithm, expected, max_bytes=most)
        secret = auth.jwt_secret_key.get_secret_value() or own_secret(settings.data, SECRET_FILE)
        return cls(secret, auth.jwt_algorithm, expected, auth.jwt_secret_key_previous.get_secret_value(), most)

    @property
    def ours(self) -> bool:
        """Whether `issue` works."""
        return self._signing is not None

    def issue(
        self,
        user_id: str,
        org_id: str = DEFAULT_ORG,
        permissions: Sequence[str] = (),
        ttl_seconds: int = 3600,
        **claims: Any,
    ) -> str:
        """Issue a token that is valid for `ttl_seconds`, with further claims. Raises NotOurs."""
        if self._signing is None:
            raise NotOurs(f"tokens are made by your issuer: {self._algorithm} has no secret here")
        issued = int(time.time())
        claims = {"sub": user_id, "org_id": org_id, "iat": issued, "exp": issued + ttl_seconds, **claims}
        claims |= self._expected.claims
        if permissions:
            claims["permissions"] = list(permissions)
        return jwt.encode({"alg": self._algorithm, "typ": "JWT"}, claims, self._signing, registry=self._algorithms)

    async def verify(self, token: str) -> Identity:
        """Check a token. Raises TokenExpired, TokenInvalid, or KeysUnavailable if there are no keys yet."""
        if len(token) > self._max_bytes:
            raise TokenTooLong(self._max_bytes, len(token))
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._verified.get(digest)
        if known is not None and known.holds(time.time(), await self._keys.of(known.kid)):
            return known.identity
        kid = self._kid(token)
        keys = await self._keys.of(kid)
        for key in keys:
            claims = self._claims(token, key)
            if claims is not None:
                identity = _identity(claims)
                self._verified[digest] = _Verified.of(claims, kid, key, identity)
                return identity
        if not keys:
            raise TokenInvalid("it has no kid, and no key fits" if kid is None else f"no key has the kid {_shown(kid)}")
        named = "" if kid is None else f", kid {_shown(kid)}"
        raise TokenInvalid(f"the signature is by none of {len(keys)} key{'s' if len(keys) > 1 else ''}{named}")

    def _kid(self, token: str) -> str | None:
        """The header's `kid`, after a check. Key references in the header (jku, jwk, x5u, x5c) are never followed."""
        try:
            header: Any = json_b64decode(token.split(".")[0].encode("ascii"))
        except ODD:
            raise TokenInvalid("it is no JWT: its header can't be read") from None
        if not isinstance(header, dict):
            raise TokenInvalid("it is no JWT: its header is no JSON object")
        if header.get("alg") != self._algorithm:
            raise TokenInvalid(f"alg is {_shown(header.get('alg'))}; {self._algorithm!r} is expected")
        if extensions := header.keys() & {"crit", "b64", "enc", "zip"}:
            raise TokenInvalid(f"its header has extensions that are not supported: {', '.join(sorted(extensions))}")
        kind, kid = header.get("typ", "JWT"), header.get("kid")
        if not isinstance(kind, str) or kind.lower() not in TYPES:
            raise TokenInvalid(f"typ is {_shown(kind)}; 'JWT' or 'at+jwt' is expected")
        if not isinstance(kid, str | None):
            raise TokenInvalid(f"kid is {_shown(kid)}; a string is expected")
        return kid

    def _claims(self, token: str, key: Key) -> dict[str, Any] | None:
        """The claims; None if another key signed the token. Raises TokenExpired or TokenInvalid."""
        try:
            claims = jwt.decode(token, key, registry=self._algorithms).claims
            self._expected.check(claims)
        except BadSignatureError:
            return None
        except ODD as error:
            raise TokenInvalid(f"it can't be read: {type(error).__name__}") from None
        return claims

    async def close(self) -> None:
        await self._keys.close()


def _public_keys(auth: Auth) -> Keys:
    if auth.jwks_url:
        from .jwks import JwksClient  # imports an HTTP client, which is not needed otherwise

        return JwksClient(auth.jwks_url, auth.jwt_algorithm)
    return FixedKeys([key_of_file(auth.jwt_public_key, auth.jwt_algorithm)])


def _identity(claims: dict[str, Any]) -> Identity:
    user, org, permissions = claims["sub"], claims.get("org_id"), claims.get("permissions")
    org = DEFAULT_ORG if org is None else org
    permissions = [] if permissions is None else permissions
    for claim, name in (("sub", user), ("org_id", org)):
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
            raise TokenInvalid(f"{claim} must be 1 to {MAX_NAME_CHARACTERS} printable characters, not {_shown(name)}")
    if not isinstance(permissions, list) or not all(isinstance(one, str) for one in permissions):
        raise TokenInvalid("permissions must be a list of strings")
    try:
        return Identity(user, org, tuple(permissions), TokenLimits.of(claims))
    except ValueError as error:
        raise TokenInvalid(f"the claim imgsvc can't be used: {_short(str(error))}") from None


def _shown(value: object) -> str:
    """A claim or header member for the log: a token may be signed by anyone and hold anything."""
    return "missing" if value is None else _short(ascii(value))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
