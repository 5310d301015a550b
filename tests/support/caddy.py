"""Caddy itself, with a site block of a page."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.papers import TOUR_HOST
from tests.support.server_process import WAIT_SECONDS, until

CADDY = shutil.which("caddy")
NEEDS_CADDY = pytest.mark.skipif(CADDY is None, reason="caddy is not installed")
# What a machine without a public name needs: a certificate of Caddy's own authority, and a port that is free.
OPTIONS = """\
{{
    admin off
    local_certs
    skip_install_trust
    auto_https disable_redirects
    https_port {port}
    default_bind 127.0.0.1
    storage file_system {folder}/caddy
}}
"""


@contextmanager
def caddy(folder: Path, text: str, service: str) -> Iterator[int]:
    """Caddy in the foreground, on a free port. Of `text` only the address of the service is changed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "Caddyfile"
    config.write_text(
        OPTIONS.format(port=port, folder=folder)
        + text.replace(TOUR_HOST.partition("//")[2], service.partition("//")[2])
    )
    command = [CADDY or "", "run", "--config", str(config), "--adapter", "caddyfile"]
    log = folder / "caddy.log"
    with log.open("wb") as opened:
        process = subprocess.Popen(command, env={"HOME": str(folder)}, stderr=opened)
    try:
        until(lambda: process.poll() is not None or b"certificate obtained" in log.read_bytes())
        assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.terminate()
        process.wait(WAIT_SECONDS)


def caddy_syntax(text: str) -> str:
    """What is wrong without asking Caddy: a block begins at the end of a line, and ends with a line of its own."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    if any(line != "}" and re.search("[{}]", line.removesuffix("{")) for line in lines):
        return "a brace inside a line"
    return "" if sum(line.endswith("{") for line in lines) == lines.count("}") else "braces do not match"
