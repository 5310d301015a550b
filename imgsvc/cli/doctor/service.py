"""Checks the running service, its public address, and the clocks."""

import os
import secrets
import ssl
import tempfile
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from ...settings import Settings
from ..service_client import running
from .finding import Finding, warning, well, wrong

TIMEOUT_SECONDS = 5.0
DIFFERENCE_SECONDS = 3.0  # allowed between two clocks; a Date has whole seconds and is delayed by the network
EXPIRES_SOON_DAYS = 14
DAY = 86_400


def clock(settings: Settings) -> Iterator[Finding]:
    """Compare this machine's clock with the file system's: a share has its server's."""
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if not settings.data.is_dir():
        yield well(f"it is {now} here")
        return
    with tempfile.TemporaryFile(dir=settings.data) as stream:  # without a name: nothing is left of one that was killed
        difference = os.fstat(stream.fileno()).st_mtime - time.time()
    if abs(difference) > DIFFERENCE_SECONDS:
        advice = "set both by NTP: otherwise files look older or newer than their rows"
        yield warning(f"the data folder's clock differs from this one's by {difference:+.0f} seconds", advice)
    else:
        yield well(f"it is {now} here, and in the data folder")


def service(settings: Settings) -> Iterator[Finding]:
    found = running(settings)
    if found is None:
        yield warning("no service runs on the data folder", "start it: imgsvc serve")
        return
    answer = found.request("GET", "/api/v1/health", timeout=TIMEOUT_SECONDS, expect_ok=False)
    report: dict[str, Any] = answer.json()
    bad = [f"{name}: {check['detail']}" for name, check in report["checks"].items() if check["status"] != "healthy"]
    text = f"version {report['version']} responds at {found.address} and is {report['status']}"
    if report["status"] == "unhealthy":
        yield wrong(f"{text} ({'; '.join(bad)})", "see its log")
    elif bad:
        yield warning(f"{text} ({'; '.join(bad)})", "see its log")
    else:
        yield well(text)
    yield from _clock_of(answer)


def public_url(settings: Settings) -> Iterator[Finding]:
    """The response must repeat our trace ID: a parked domain answers 200 too."""
    url = settings.service.public_url
    if not url:
        yield well("none is set: URLs are returned without a host")
        return
    mark = f"doctor-{secrets.token_hex(8)}"
    try:
        with (
            httpx.Client(timeout=TIMEOUT_SECONDS) as client,
            client.stream("GET", f"{url}/api/v1/health/live", headers={"X-Trace-ID": mark}) as answer,
        ):
            expires = _expiry(answer)
    except httpx.HTTPError as error:
        advice = "check that the proxy runs and forwards to this service, and the name's DNS entry"
        yield wrong(f"{url} does not respond: {str(error) or type(error).__name__}", advice)
        return
    if answer.status_code != 200 or answer.headers.get("X-Trace-ID") != mark:
        advice = "check that the proxy forwards to this service, removes the path prefix and keeps X-Trace-ID"
        yield wrong(f"{url} answers {answer.status_code}, but not from this service", advice)
        return
    yield well(f"{url} answers")
    if expires is not None and expires < EXPIRES_SOON_DAYS * DAY:
        yield warning(f"its certificate expires in {expires / DAY:.0f} days", "renew it")
    yield from _clock_of(answer)


def _expiry(answer: httpx.Response) -> float | None:
    """Seconds until the server's certificate expires."""
    secured = answer.extensions["network_stream"].get_extra_info("ssl_object")
    certificate = secured.getpeercert() if secured else None
    return ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time() if certificate else None


def _clock_of(answer: httpx.Response) -> Iterator[Finding]:
    try:
        difference = parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()
    except (KeyError, ValueError):
        return
    if abs(difference) > DIFFERENCE_SECONDS:
        advice = "set both by NTP: tokens expire by that clock"
        yield warning(f"its clock differs from this one's by {difference:+.0f} seconds", advice)
