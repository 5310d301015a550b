"""The gateway's output: lines for the service."""

import os

from .messages import Dropped, FromGateway, word


def tell(line: FromGateway) -> None:
    """Write a line to the service. If that has ended, so does this process."""
    data = line.model_dump_json().encode() + b"\n"
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        os._exit(0)


def dropped(ticket_id: str, reason: object, *, begun: bool = False) -> Dropped:
    return Dropped(id=ticket_id, begun=begun, reason=word(reason))
