"""The function that a ticket is sent out with. The scheduler imports this module too, and needs nothing else of it."""


async def render(ticket: str) -> str | None:
    """Perform a ticket on the worker of this process. Both it and its answer are JSON.

    Returns None once the service has the answer. The gateway fetches any other result, by a request that passes through
    the scheduler.
    """
    from .performer import of_this_process

    return await of_this_process().perform(ticket)
