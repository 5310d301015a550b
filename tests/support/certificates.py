"""The certificates of public authorities, read once: httpx reads them for each client, which takes 20 ms."""

import os
import ssl
from functools import cache
from typing import Any

from httpx import create_ssl_context
from httpx._transports import default


def share_certificates() -> None:
    """For all clients that this process and its forks make from now on."""
    setattr(default, "create_ssl_context", _context)  # noqa: B010


def _context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
    if verify is not True or cert is not None:
        return create_ssl_context(verify, cert, trust_env)
    return _usual(trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _usual(trust_env: bool, *_where: str | None) -> ssl.SSLContext:
    return create_ssl_context(trust_env=trust_env)
