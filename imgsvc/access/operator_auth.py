"""The operator's credentials: the token, and one-use codes derived from it. Sessions are in jobs/operator_sessions.

A code is an HMAC (RFC 2104) keyed with the token, so the command line can make one without calling the service. A code
is valid for one run of the service only, since the list of used codes is in memory.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable

from ..settings import Settings
from .secrets import own_secret

TOKEN_FILE = "operator_token"  # noqa: S105, a file name
CODE_SECONDS = 600
CODE = re.compile(r"([0-9]{13})\.([A-Za-z0-9_-]{22})\.([0-9a-f]{64})")


class OperatorAuth:
    """The token, and the codes that were used in this run of the service. `run` is the data folder lock's."""

    def __init__(self, token: str, run: str, clock: Callable[[], float] = time.time) -> None:
        self._token = token
        self._digest = _digest(token)
        self._clock = clock
        self._run = run
        self._used: dict[str, float] = {}

    def knows(self, token: str) -> bool:
        """Whether this is the operator's token. Compared in constant time."""
        return hmac.compare_digest(_digest(token), self._digest)

    def redeem_code(self, code: str) -> bool:
        """Whether the code is valid. It can be used only once."""
        match, now = CODE.fullmatch(code), self._clock()
        if match is None or not hmac.compare_digest(match[3], _signature(self._token, self._run, match[1], match[2])):
            return False
        made = int(match[1]) / 1000
        self._used = {nonce: end for nonce, end in self._used.items() if end > now}
        if match[2] in self._used or not made - 1 <= now <= made + CODE_SECONDS:
            return False
        self._used[match[2]] = made + CODE_SECONDS
        return True


def operator_token(settings: Settings) -> str:
    """The configured token, or the one in the data folder, which is created if there is none."""
    return settings.operator.token.get_secret_value() or own_secret(settings.data, TOKEN_FILE)


def login_code(token: str, run: str) -> str:
    """A code that opens one session within ten minutes, in this run of the service."""
    made, nonce = str(int(time.time() * 1000)), secrets.token_urlsafe(16)
    return f"{made}.{nonce}.{_signature(token, run, made, nonce)}"


def _signature(token: str, run: str, made: str, nonce: str) -> str:
    return hmac.new(token.encode(), f"imgsvc login code {run} {made} {nonce}".encode(), hashlib.sha256).hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
