"""URLs that are good for a while: signed with HMAC-SHA256 (RFC 2104), as S3's presigned ones are.

The text that is signed has four lines, the path last, since it alone may hold any character:

    imgsvc url 1
    EXPIRES     seconds since 1970, in plain decimals
    SIZE        of /direct the variant, also where the URL leaves it to the default; of /storage nothing
    PATH        decoded once, without scheme, host, any prefix of a proxy, and query
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
STEP_SECONDS = 60  # who asks again within one gets the same URL, which a browser then has in its cache
EXPIRES = re.compile(r"[1-9][0-9]{0,11}")
SIGNATURE = re.compile(r"[A-Za-z0-9_-]{43}")


class SignatureInvalid(Exception):
    """It is not ours, or not for this."""


class SignatureExpired(Exception):
    """It was good once."""


class Signatures:
    """Signs with `key`; what was signed with one of `older` is still accepted. A URL is good for `seconds`, and up to
    a minute more."""

    def __init__(
        self, key: str, seconds: int, older: tuple[str, ...] = (), clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = [one.encode() for one in (key, *older)]
        self._seconds, self._step = seconds, min(seconds, STEP_SECONDS)
        self._clock = clock

    @classmethod
    def of(cls, settings: Settings) -> "Signatures":
        """With the configured key, or the one in the data folder, which is made if there is none."""
        storage = settings.storage
        key = storage.url_signing_key.get_secret_value() or own_secret(settings.data, KEY_FILE)
        previous = storage.url_signing_key_previous.get_secret_value()
        return cls(key, storage.signed_url_seconds, (previous,) if previous else ())

    def query(self, path: str, size: str = "") -> str:
        """`expires=…&signature=…` for this path and variant, from now on."""
        expires = math.ceil((self._clock() + self._seconds) / self._step) * self._step
        return f"expires={expires}&signature={_signature(self._keys[0], canonical(path, size, expires))}"

    def seconds_left(self, path: str, size: str, expires: str, signature: str) -> int:
        """How long it is still good. Raises SignatureInvalid or, of what was good once, SignatureExpired."""
        form = EXPIRES.fullmatch(expires) and SIGNATURE.fullmatch(signature)
        if not form or (size and not VARIANT_NAME.fullmatch(size)):
            raise SignatureInvalid
        text = canonical(path, size, int(expires))
        # As text and by every key: the encoding has no second form, and the time tells neither key nor byte.
        known = [hmac.compare_digest(signature, _signature(key, text)) for key in self._keys]
        if not any(known):
            raise SignatureInvalid
        left = int(expires) - self._clock()
        if left <= 0:
            raise SignatureExpired
        return int(left)


def canonical(path: str, size: str, expires: int) -> bytes:
    """What is signed: no two of (path, size, expires) have it in common."""
    return f"imgsvc url 1\n{expires}\n{size}\n{path}".encode("utf-8", "surrogatepass")


def _signature(key: bytes, text: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, text, hashlib.sha256)).decode().rstrip("=")
