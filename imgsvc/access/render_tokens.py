"""Tokens that open the source and the outputs of one run to the machine that renders it, signed with HMAC-SHA256.

The signed text has a line for each of

    imgsvc render 1
    JOB         the job's id
    RUN         its fencing token, in decimals
    DEADLINE    seconds since 1970 by this service's clock, the only one that judges it
    NAME BYTES  for each variant that may be put, with the most bytes that it may have

A token is the text and its signature in base64url (RFC 4648 section 5), joined by a dot. A new key is created at each
start and kept nowhere: a run ends with its service.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping

from ..lazy_dataclass import dataclass

HEAD = "imgsvc render 1"
MAX_TOKEN = 8_192  # characters
KEY_BYTES = 32


class RenderTokenInvalid(Exception):
    """The token is not one of this service since its start."""


class RenderTokenExpired(Exception):
    """The deadline has passed."""


@dataclass(frozen=True, slots=True)
class RenderGrant:
    """What a token permits: to read the source of this run, and to put each variant of `largest` ({name: bytes})."""

    job_id: str
    run: int
    deadline: int
    largest: Mapping[str, int]


class RenderTokens:
    """`clock`: the wall clock, in seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._keyed = hmac.new(secrets.token_bytes(KEY_BYTES), digestmod=hashlib.sha256)
        self._clock = clock

    def issue(self, job_id: str, run: int, seconds: float, largest: Mapping[str, int]) -> str:
        """A token that is good for so many seconds."""
        variants = [f"{name} {most}" for name, most in largest.items()]
        text = "\n".join((HEAD, job_id, str(run), str(int(self._clock() + seconds)), *variants)).encode()
        return f"{_encoded(text)}.{self._signature(text)}"

    def verify(self, token: str) -> RenderGrant:
        """What the token permits. Raises RenderTokenInvalid or, after its deadline, RenderTokenExpired."""
        text, _, signature = token.partition(".")
        try:
            signed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raise RenderTokenInvalid from None
        sent = signature.encode("utf-8", "surrogatepass")
        if len(token) > MAX_TOKEN or not hmac.compare_digest(sent, self._signature(signed).encode()):
            raise RenderTokenInvalid
        _, job_id, run, deadline, *variants = signed.decode().split("\n")
        largest = {name: int(most) for name, most in (line.split(" ") for line in variants)}
        grant = RenderGrant(job_id, int(run), int(deadline), largest)
        if grant.deadline <= self._clock():
            raise RenderTokenExpired
        return grant

    def _signature(self, text: bytes) -> str:
        signing = self._keyed.copy()  # hmac.digest would let other threads run before it returns, which may take ms
        signing.update(text)
        return _encoded(signing.digest())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
