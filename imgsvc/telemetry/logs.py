"""One line per event on standard error: JSON for machines, coloured text for a person at a terminal."""

import logging
import sys
from typing import Any

import structlog

from ..settings import Log


def configure(settings: Log) -> None:
    """Send our events, the server's messages and Python's warnings through the same lines."""
    json_lines = settings.json_lines == "true" or (settings.json_lines == "auto" and not sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: list[Any] = [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # the default shows local variables: tokens, for one
        )
    ]
    if json_lines:
        renderer = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.level, force=True)
    for noisy in ("asyncio", "aiosqlite", "httpx", "hypercorn", "PIL", "botocore", "aiobotocore"):  # signatures, tokens
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.captureWarnings(True)
