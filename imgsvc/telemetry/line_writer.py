"""Writes the lines of the log: most at once, and those of requests from a thread, so that the loop waits for none."""

import atexit
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TextIO

GATHER_SECONDS = 0.005  # that the thread waits for more lines, which then take one write together
MAX_WAITING = 10_000  # lines; beyond that their writer waits for the output, and none is dropped
END_SECONDS = 1.0


class LineWriter:
    """A stream for logging's handler, which keeps the order of all lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: deque[str] = deque()
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> None:
        """Write it now, behind the lines that wait. Raises OSError."""
        with self._lock:
            self._write_waiting()
            self._stream.write(text)

    def flush(self) -> None:
        """Write the lines that wait. Raises OSError."""
        with self._lock:
            self._write_waiting()
            self._stream.flush()

    def write_soon(self, text: str) -> None:
        """Have it written within a few milliseconds, by the thread. A process that is killed may lose it."""
        self._waiting.append(text)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()
            atexit.register(self.close)
        if len(self._waiting) > MAX_WAITING:
            with suppress(OSError, ValueError):
                self.flush()
        elif not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what waits, unless the output takes nothing: for the end of the process."""
        if self._lock.acquire(timeout=END_SECONDS):
            try:
                with suppress(OSError, ValueError):
                    self.flush()
            finally:
                self._lock.release()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(GATHER_SECONDS)
            self._wake.clear()
            with suppress(OSError, ValueError):  # as logging does: an output that fails ends nothing
                self.flush()

    def _write_waiting(self) -> None:
        lines = []
        with suppress(IndexError):
            while True:
                lines.append(self._waiting.popleft())
        if lines:
            self._stream.write("".join(lines))
