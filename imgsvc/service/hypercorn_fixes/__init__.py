"""Hypercorn as an HTTP/1.1 server with limits: HTTP/2 is refused, and no client is waited for without a time limit.

All internal parts of Hypercorn that are replaced or relied on are here. The replacements and their reasons:
- `StrictHead`: h11 checks the size of a head only while it is incomplete (python-hyper/h11#182), and accepts a bare LF
  (since python-hyper/h11#115), Content-Length beside Transfer-Encoding (python-hyper/h11#90) and any version: a proxy
  may read such a head differently (RFC 9112 sections 2.2 and 6.3).
- `Http1`: Hypercorn changes to HTTP/2 on request, which goes past a proxy that checks paths, keeps answers in memory
  for a client whose window is 0, and bounds resets only by a number of requests (pgjones/hypercorn#146): a proxy speaks
  it for us. A WebSocket would be refused without a response. A head and a small body are two writes.
  It permits the body of `Expect: 100-continue` before the application has looked at the request (no issue found).
  h11 copies a body three times, and its events for a photo take longer than its digest.
- `Connection`: Hypercorn's hands a whole body to the transport, and keeps the socket of a client that has left until
  the keep-alive time is over (no issue found for either). It closes while a client sends on, whose system may then drop
  the response that it has (RFC 9112 section 9.6). It leaves TLS to the event loop: see `tls_session`.
  It makes and cancels a task for each request, to limit the wait for the next: see `idle_timer`. A connection that has
  ended stays in memory, with its TLS, until a collection of cycles, which comes after hundreds (no issue found).
- `HttpServer`: Hypercorn has no deadline for a client that does not read (a `write_timeout` was proposed and not taken,
  pgjones/hypercorn#262). Its stop waits for a client that does not read (with TLS it fails instead,
  pgjones/hypercorn#202), and on asyncio's own loop, from Python 3.12 on, for requests without an end
  (pgjones/hypercorn#308).
- `LeanContext`, `Requests`: Hypercorn's event of a connection and queue of a request take 4 KB (no issue found).

`tests/service/test_hypercorn_fixes.py` shows for each that the plain part misbehaves, and fails once it does not.
"""

from importlib.metadata import version

import structlog

log = structlog.get_logger()

# Versions with which all tests have passed: of Hypercorn, and of h11, of whose reader of a body `StrictHead` makes use.
TRIED_WITH = {"hypercorn": ("0.18.0",), "h11": ("0.16.0",)}


def warn_if_untried() -> None:
    """Log a warning for each that is installed in a version that these fixes were not tried with."""
    for package, tried in TRIED_WITH.items():
        installed = version(package)
        if installed not in tried:
            log.warning(
                f"{package}_untried",
                installed=installed,
                tried=", ".join(tried),
                effect="replaced parts of it may not fit this version: run the tests, or install one that was tried",
            )
