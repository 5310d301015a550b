"""The function that a ticket is sent out with. The scheduler imports this module too, and needs nothing else of it."""


async def render(ticket: str) -> str:
    """Perform a ticket on the worker of this process, and return its answer. Both are JSON."""
    from .performer import of_this_process

    return await of_this_process().perform(ticket)
