"""Background work that is repeated without end."""

from collections.abc import Awaitable, Callable

import anyio
import structlog

log = structlog.get_logger()


async def repeat(work: Callable[[], Awaitable[None]], seconds: float, failure: str) -> None:
    """Do `work`, wait for `seconds`, and so on until cancelled.

    An error is logged as the event `failure`, and the work is done again at the next time.
    """
    while True:
        try:
            await work()
        except Exception as error:
            log.warning(failure, reason=str(error))
        await anyio.sleep(seconds)
