"""The keys that tokens may be signed with: our own secrets, or the public key of an external issuer in a PEM file."""

from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from ..settings import SettingsError

MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
MAX_RSA_BITS = 8192  # the cost of a check grows with the key size
MAX_PEM_BYTES = 64 * 1024
KINDS: Mapping[str, type[RSAKey | ECKey | OKPKey]] = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey}
CURVES = {"ES256": "P-256", "ES384": "P-384", "EdDSA": "Ed25519"}  # Ed448 is left out: no issuer is known to use it


class WrongKey(Exception):
    """A key that can't be used with the algorithm. The message gives the reason."""


class KeysUnavailable(Exception):
    """The issuer's keys can't be fetched, and none are cached yet. `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the issuer's keys are not known yet")
        self.retry_after = retry_after


class Keys(Protocol):
    """A source of keys."""

    async def of(self, kid: str | None) -> Sequence[Key]:
        """The keys that may have signed a token with `kid` in its header. Raises KeysUnavailable."""
        ...

    async def close(self) -> None: ...


class FixedKeys:
    """Fixed keys, used whatever `kid` a token's header has."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = keys

    async def of(self, kid: str | None) -> Sequence[Key]:  # noqa: ARG002
        return self._keys

    async def close(self) -> None:
        return


def secrets(*texts: str) -> list[OctKey]:
    return [OctKey.import_key(text) for text in texts if text]


def public_key(jwk: Mapping[str, Any] | PublicKeyTypes, algorithm: str) -> Key:
    """Import a JWK (RFC 7517), or a key read from PEM, as a key for exactly this algorithm. Raises WrongKey.

    Symmetric keys are refused, so that a public key can never be used as a secret.
    """
    kind = KINDS[algorithm[:2]]
    try:
        if kind is RSAKey:
            _check_bits(jwk["n"] if isinstance(jwk, Mapping) else jwk)
        key = kind.import_key(dict(jwk) if isinstance(jwk, Mapping) else _pem(jwk))
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError, UnsupportedAlgorithm):
        raise WrongKey(f"is no usable key of the kind {kind.key_type}, which {algorithm} needs") from None
    if key.is_private:
        raise WrongKey("is a private key, which only the issuer should have")
    if not isinstance(key, RSAKey) and key.curve_name != CURVES[algorithm]:
        raise WrongKey(f"is on the curve {key.curve_name}; {algorithm} needs {CURVES[algorithm]}")
    return key


def _check_bits(key: Any) -> None:
    """Check the size of an RSA modulus, which a JWK contains as base64url (RFC 7518 section 6.3.1.1)."""
    if isinstance(key, RSAPublicKey):
        bits = key.key_size
    else:
        bits = int.from_bytes(urlsafe_b64decode(key.encode("ascii") + b"=="), "big").bit_length()
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise WrongKey(f"has {bits} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")


def _pem(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def key_of_file(file: str, algorithm: str) -> Key:
    """The one public key in a PEM file. Raises SettingsError."""
    named = f"[auth] jwt_public_key (IMGSVC_AUTH_JWT_PUBLIC_KEY) = {file!r}"
    try:
        with Path(file).open("rb") as stream:
            data = stream.read(MAX_PEM_BYTES)
    except OSError as error:
        raise SettingsError(f"{named}: can't be read: {error.strerror or error}") from None
    if b"PRIVATE KEY-----" in data:
        raise SettingsError(f"{named}: contains a private key, which only the issuer should have; use the public one")
    if data.count(b"-----BEGIN ") != 1:
        raise SettingsError(f"{named}: must contain one public key in PEM (-----BEGIN PUBLIC KEY-----)")
    try:
        native = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(f"{named}: must contain one public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
    try:
        return public_key(native, algorithm)
    except WrongKey as error:
        raise SettingsError(f"{named}: {error}") from None
