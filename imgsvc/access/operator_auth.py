"""The operator's credentials: the token, one-use codes derived from it, and sessions in a cookie.

A code is an HMAC (RFC 2104) keyed with the token, so the command line can make one without calling the service. A code
is valid for one run of the service only, since the list of used codes is in memory.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from ..settings import Settings
from .secrets import own_secret

TOKEN_FILE = "operator_token"  # noqa: S105, a file name
CODE_SECONDS = 600
MAX_SESSIONS = 1000
CODE = re.compile(r"([0-9]{13})\.([A-Za-z0-9_-]{22})\.([0-9a-f]{64})")


class OperatorAuth:
    """Used codes and open sessions of one run: a restart ends all of them. `run` is the data folder lock's."""

    def __init__(
        self, token: str, run: str, session_seconds: float = 43_200, clock: Callable[[], float] = time.time
    ) -> None:
        self.session_seconds = session_seconds
        self._token = token
        self._digest = _digest(token)
        self._clock = clock
        self._run = run
        self._used: dict[str, float] = {}
        self._sessions: OrderedDict[bytes, float] = OrderedDict()

    @classmethod
    def of(cls, settings: Settings, run: str) -> "OperatorAuth":
        return cls(operator_token(settings), run, settings.operator.session_hours * 3600)

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

    def open_session(self) -> str:
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session)] = self._clock() + self.session_seconds
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def has_session(self, session: str) -> bool:
        """Whether the session is open. Looked up by digest, so the time taken reveals nothing about valid ones."""
        end = self._sessions.get(_digest(session))
        return end is not None and self._clock() < end

    def close_session(self, session: str) -> None:
        self._sessions.pop(_digest(session), None)


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
