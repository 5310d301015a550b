"""nginx itself, with a server block of a page."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import tls
from tests.support.papers import TOUR_HOST
from tests.support.server_process import WAIT_SECONDS, until

SCHEME = "http://"
PATH = f"{os.environ['PATH']}:/usr/sbin"  # where Debian puts servers
NGINX = shutil.which("nginx", path=PATH)
NEEDS_NGINX = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@contextmanager
def nginx(folder: Path, text: str, service: str, user: str = "") -> Iterator[int]:
    """nginx in the foreground, on a free port. `user`: of its workers; otherwise one process of this user."""
    certificate, key = tls.certificate(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for shown, own in {".pem": certificate, ".key": key}.items():
        text = text.replace(f"/etc/ssl/img.example.org{shown}", str(own))
    text = text.replace("443", f"127.0.0.1:{port}")
    text = text.replace(TOUR_HOST.removeprefix(SCHEME), service.removeprefix(SCHEME))
    temporary = "".join(
        f"{name}_temp_path {folder}/nginx-{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    processes = f"user {user}; worker_processes 1;" if user else "master_process off;"
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; {processes} pid {folder}/nginx.pid; error_log stderr;"
        f"events {{}} http {{ access_log off; {temporary} {text} }}"
    )
    command = [NGINX or "", "-p", str(folder), "-e", "stderr", "-c", str(config)]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0 and "warn" not in checked.stderr, checked.stderr
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port))
        yield port
    finally:
        process.terminate()
        process.wait(WAIT_SECONDS)


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def nginx_syntax(text: str) -> bool:
    """Each directive ends with a semicolon or opens a block, and all blocks are closed."""
    bare = re.sub(r"#.*", "", text)
    depth, rest = 0, ""
    for end in re.finditer(r"([^;{}]*)([;{}])", bare):
        depth += {"{": 1, "}": -1, ";": 0}[end[2]]
        rest = bare[end.end() :]
        if depth < 0 or bool(end[1].strip()) == (end[2] == "}") or "\n" in end[1].strip():
            return False
    return depth == 0 and not rest.strip()
