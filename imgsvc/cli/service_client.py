"""Speaking to the running service: where it listens, and its operator API."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..access.operator_auth import operator_token
from ..jobs.lock import holder
from ..settings import Settings
from ..settings.hosts import LOOPBACK_NAMES, allowed_hosts
from .errors import CommandFailed
from .imports import without

with without("click", "pygments", "rich"):  # for a command line of its own
    import httpx

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Running:
    """The service that holds the data folder. `host` is a name it answers for, where its address is none."""

    address: str
    host: str
    run: str
    token: str

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None = None,
        timeout: float = TIMEOUT_SECONDS,
        body: Mapping[str, Any] | None = None,
        *,
        as_operator: bool = True,
    ) -> dict[str, Any]:
        """The JSON answer; `timeout` in seconds. Raises CommandFailed."""
        answer = self.ask(method, path, timeout, as_operator=as_operator, params=query, json=body)
        found = answer.json()
        if answer.is_error:
            raise CommandFailed(str(found.get("detail", answer.reason_phrase)))
        return dict(found)

    def ask(
        self, method: str, path: str, timeout: float = TIMEOUT_SECONDS, *, as_operator: bool = True, **request: Any
    ) -> httpx.Response:
        """The answer, whatever its status, which is JSON; `request` as httpx takes it. Raises CommandFailed."""
        headers = {"Host": self.host} if self.host else {}
        if as_operator:
            headers["Authorization"] = f"Bearer {self.token}"
        url = f"{self.address}{path}"
        try:
            # The certificate is for the public name; this address is of this machine, and out of our own file.
            with httpx.Client(verify=False, trust_env=False, timeout=timeout) as client:  # noqa: S501
                answer = client.request(method, url, headers=headers, **request)
            answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise CommandFailed(f"{self.address} does not answer: {str(error) or type(error).__name__}") from None
        return answer


def segment(name: str) -> str:
    """Any text as one segment of a path, dots too: `..` would lead elsewhere."""
    return quote(name, safe="").replace(".", "%2E")


def running(settings: Settings) -> Running | None:
    """The running service; None if nobody holds the data folder. Raises CommandFailed while it does not listen."""
    found = holder(settings.data)
    if found is None:
        return None
    if not found.address:
        raise CommandFailed(f"process {found.pid} holds the data folder {settings.data} and does not listen (yet)")
    names = allowed_hosts(settings)
    host = "" if not names or set(LOOPBACK_NAMES) & set(names) else names[0]
    return Running(found.address, host, found.run, operator_token(settings))
