"""URLs that expire, signed with HMAC-SHA256 (RFC 2104), like S3's presigned ones.

The signed text has four lines. The path is the last one, since only it may contain any character:

    imgsvc url 1
    EXPIRES     seconds since 1970, in plain decimals
    SIZE        for /direct the variant, even if the URL omits it; for /storage empty
    PATH        decoded once, without scheme, host, a proxy's prefix, and query
"""

import base64
import hashlib
import hmac
import math
import re
import time
from collections.abc import Callable

from ..settings import Settings
from ..settings.jobs import VARIANT_NAME
from .secrets import own_secret

KEY_FILE = "url_key"
STEP_SECONDS = 60  # within one step the URL stays the same, so that browsers can cache its response
EXPIRES = re.compile(r"[1-9][0-9]{0,11}")
SIGNATURE = re.compile(r"[A-Za-z0-9_-]{43}")


class SignatureInvalid(Exception):
    """The signature is not ours, or is for another URL."""


class SignatureExpired(Exception):
    """The signature has expired."""


class Signatures:
    """Signs with `key`, and also accepts signatures made with one of `older`. URLs are valid for `seconds`, and up to a
    minute more."""

    def __init__(
        self, key: str, seconds: int, older: tuple[str, ...] = (), clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = [one.encode() for one in (key, *older)]
        self._seconds, self._step = seconds, min(seconds, STEP_SECONDS)
        self._clock = clock

    @classmethod
    def of(cls, settings: Settings) -> "Signatures":
        """Use the configured key, or the one in the data folder, which is created if there is none."""
        storage = settings.storage
        key = storage.url_signing_key.get_secret_value() or own_secret(settings.data, KEY_FILE)
        previous = storage.url_signing_key_previous.get_secret_value()
        return cls(key, storage.signed_url_seconds, (previous,) if previous else ())

    def query(self, path: str, size: str = "", until: float | None = None) -> str:
        """`expires=…&signature=…` for a path (decoded, without prefix) and variant, starting now.

        It is valid until `until` (seconds since 1970) at most.
        """
        expires = math.ceil((self._clock() + self._seconds) / self._step) * self._step
        if until is not None:
            expires = min(expires, int(until))
        return self.query_until(path, expires, size)

    def query_until(self, path: str, expires: int, size: str = "") -> str:
        """The same, up to a given second since 1970."""
        return f"expires={expires}&signature={_signature(self._keys[0], canonical(path, size, expires))}"

    def seconds_left(self, path: str, size: str, expires: str, signature: str) -> int:
        """Seconds until it expires. Raises SignatureInvalid or, for an expired signature, SignatureExpired."""
        form = EXPIRES.fullmatch(expires) and SIGNATURE.fullmatch(signature)
        if not form or (size and not VARIANT_NAME.fullmatch(size)):
            raise SignatureInvalid
        text = canonical(path, size, int(expires))
        # Compared as text with every key: the encoding is unambiguous, and the time reveals neither the key nor a byte.
        known = [hmac.compare_digest(signature, _signature(key, text)) for key in self._keys]
        if not any(known):
            raise SignatureInvalid
        left = int(expires) - self._clock()
        if left <= 0:
            raise SignatureExpired
        return int(left)


def canonical(path: str, size: str, expires: int) -> bytes:
    """The signed bytes. They differ for any two different (path, size, expires)."""
    return f"imgsvc url 1\n{expires}\n{size}\n{path}".encode("utf-8", "surrogatepass")


def _signature(key: bytes, text: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, text, hashlib.sha256)).decode().rstrip("=")
