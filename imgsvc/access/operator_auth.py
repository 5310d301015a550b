"""The operator's ways in: the token itself, codes made from it that are good once, and sessions in a cookie.

A code is an HMAC (RFC 2104) by the token, so that the command line makes one without asking the running service. It is
for one run of the service: the next has forgotten which were used.
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
    """One run's memory of them: a restart ends every session and every code. `run` is the data folder lock's."""

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
        """Whether it is the operator's token, in a time that does not tell how much of it is right."""
        return hmac.compare_digest(_digest(token), self._digest)

    def redeem_code(self, code: str) -> bool:
        """Whether it is good; from now on it is not."""
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
        """Looked up by digest, whose bytes nobody can steer: the time it takes tells nothing of the session's."""
        end = self._sessions.get(_digest(session))
        return end is not None and self._clock() < end

    def close_session(self, session: str) -> None:
        self._sessions.pop(_digest(session), None)


def operator_token(settings: Settings) -> str:
    """The configured token, or the one in the data folder, which is made if there is none."""
    return settings.operator.token.get_secret_value() or own_secret(settings.data, TOKEN_FILE)


def login_code(token: str, run: str) -> str:
    """A code that opens one session within ten minutes, in this run of the service."""
    made, nonce = str(int(time.time() * 1000)), secrets.token_urlsafe(16)
    return f"{made}.{nonce}.{_signature(token, run, made, nonce)}"


def _signature(token: str, run: str, made: str, nonce: str) -> str:
    return hmac.new(token.encode(), f"imgsvc login code {run} {made} {nonce}".encode(), hashlib.sha256).hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
