"""A client of the running service: its address, and its operator API."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ..access.operator_auth import operator_token
from ..jobs.lock import holder
from ..lazy_dataclass import dataclass
from ..settings import Settings
from ..settings.hosts import LOOPBACK_NAMES, allowed_hosts
from ..settings.server import UNIX
from .errors import CommandFailed
from .imports import without

with without("click", "pygments", "rich"):  # needed only for httpx's own command line
    import httpx

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Running:
    """The service that uses the data folder. `host` is a name that it accepts, if its address is not one."""

    address: str
    host: str
    run: str
    token: str

    def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The JSON body of a successful response; `options` as for `request`. Raises CommandFailed."""
        return dict(self.request(method, path, **options).json())

    def fetch(self, path: str, timeout: float) -> bytes:
        """The bytes at an address that needs no token. Raises CommandFailed."""
        return self._sent("GET", path, {}, timeout).content

    def request(
        self,
        method: str,
        path: str,
        *,
        timeout: float = TIMEOUT_SECONDS,
        as_operator: bool = True,
        expect_ok: bool = True,
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> httpx.Response:
        """Send a request; returns the response, whose body is JSON; `content` as in httpx. Raises CommandFailed.

        Without `expect_ok`, an error is returned too.
        """
        sent = dict(headers or {}) | ({"Authorization": f"Bearer {self.token}"} if as_operator else {})
        answer = self._sent(method, path, sent, timeout, expect_ok=expect_ok, **content)
        try:
            answer.json()
        except ValueError as error:
            raise CommandFailed(f"{self.address} does not respond: {error}") from None
        return answer

    def _sent(
        self, method: str, path: str, headers: dict[str, str], timeout: float, *, expect_ok: bool = True, **content: Any
    ) -> httpx.Response:
        headers |= {"Host": self.host} if self.host else {}
        path_of_socket = self.address.removeprefix(UNIX) if self.address.startswith(UNIX) else None
        url = f"http://localhost{path}" if path_of_socket else f"{self.address}{path}"
        try:
            # The certificate is for the public name; this address is of this machine, from our own lock file.
            transport = httpx.HTTPTransport(verify=False, trust_env=False, uds=path_of_socket)
            with httpx.Client(transport=transport, timeout=timeout) as client:
                answer = client.request(method, url, headers=headers, **content)
            found = answer.json() if expect_ok and answer.is_error else {}
        except (httpx.HTTPError, ValueError) as error:
            raise CommandFailed(f"{self.address} does not respond: {str(error) or type(error).__name__}") from None
        if expect_ok and answer.is_error:
            raise CommandFailed(_words(found) or answer.reason_phrase)
        return answer


def _words(problem: Any) -> str:
    """What an error says, with its reason where a request's fields are wrong."""
    detail, reason = (str(problem.get(name, "")) for name in ("detail", "reason"))
    return f"{detail}: {reason}" if reason else detail


def segment(name: str) -> str:
    """Encode a text as one path segment, dots included: `..` would lead elsewhere."""
    return quote(name, safe="").replace(".", "%2E")


def running(settings: Settings) -> Running | None:
    """The running service; None if there is none. Raises CommandFailed if it does not listen yet."""
    try:
        found = holder(settings.data)
    except OSError as error:  # the file of another user, or a share that can't lock
        raise CommandFailed(str(error)) from None
    if found is None:
        return None
    if not found.address:
        raise CommandFailed(f"process {found.pid} uses the data folder {settings.data} but does not listen (yet)")
    names = allowed_hosts(settings)
    host = "" if not names or set(LOOPBACK_NAMES) & set(names) else names[0]
    return Running(found.address, host, found.run, operator_token(settings))
