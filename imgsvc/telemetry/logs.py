"""One line per event on standard error: JSON for programs, coloured text for a terminal.

`level` applies to our own events. Libraries log warnings and errors only, whatever the level: their debug messages
contain signatures (of S3), tokens and credentials.
"""

import logging
import sys
from contextlib import suppress
from dataclasses import field
from io import StringIO
from typing import Any, TextIO

import structlog

from ..access.issued_secrets import redacted
from ..lazy_dataclass import dataclass
from ..settings.server import Log
from .line_writer import LineWriter

OURS = __name__.partition(".")[0]


@dataclass(slots=True)
class Output:
    """What `configure` set up: the writer of a log in JSON, None for other formats, and structlog's processors."""

    writer: LineWriter | None = None
    processors: list[Any] = field(default_factory=list)

    @property
    def json_lines(self) -> LineWriter | None:
        """Where lines go that are formatted already; None if structlog is not, or no more, configured as above."""
        if self.writer is None or structlog.get_config()["processors"] != self.processors:
            return None
        return self.writer


OUTPUT = Output()


def configure(settings: Log) -> None:
    """Configure one format for our events, the server's messages and Python's warnings."""
    json_lines = settings.json_lines == "true" or (settings.json_lines == "auto" and not sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Any] = (
        [structlog.processors.format_exc_info, _redacted, structlog.processors.JSONRenderer()]
        if json_lines
        else [
            _redacted,
            _printable,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_traceback),
        ]
    )
    writer = LineWriter(sys.stderr)
    # Our own events need nothing of Python's logging, whose records cost twice what the lines do.
    processors = [*shared, *(renderer if json_lines else [structlog.stdlib.ProcessorFormatter.wrap_for_formatter])]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        logger_factory=lambda *_: _Lines(writer) if json_lines else logging.getLogger(OURS),
        cache_logger_on_first_use=True,
    )
    OUTPUT.writer, OUTPUT.processors = writer if json_lines else None, [*processors]
    handler = logging.StreamHandler(writer)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    level = logging.getLevelNamesMapping()[settings.level]
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    logging.getLogger(OURS).setLevel(level)
    logging.captureWarnings(True)


class _Lines:
    """What structlog passes a finished line to, by the name of its level. An output that fails ends nothing."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def info(self, line: str) -> None:
        with suppress(OSError, ValueError):
            self._writer.write(f"{line}\n")
            self._writer.flush()

    debug = warning = error = critical = info


def flush() -> None:
    """Write the lines that wait, before an end of the process that runs nothing else."""
    if OUTPUT.writer:
        OUTPUT.writer.close()
    sys.stderr.flush()


def _redacted(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Remove API keys and tickets: a client may have sent one in a path."""
    return {name: redacted(value) if isinstance(value, str) else value for name, value in event.items()}


def _printable(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape control characters, which a terminal would execute: a client's path or file name may contain them."""
    return {name: _escaped(value) if isinstance(value, str) else value for name, value in event.items()}


def _traceback(stream: TextIO, error: structlog.typing.ExcInfo) -> None:
    """Format a traceback without local variables, which may contain tokens."""
    buffer = StringIO()
    structlog.dev.plain_traceback(buffer, error)
    stream.write("\n".join(map(_escaped, redacted(buffer.getvalue()).split("\n"))))


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
