"""The lines between this service and its gateway, as strict models: a worker may have taken over the gateway.

JSON objects, one a line. The service writes a `Start`, then `Submit` and `Release`; the gateway writes the rest.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ..lanes.messages import CagedType, Versions
from .ticket import MAX_ANSWER, MAX_TICKET

MAX_LINE = 4 << 20  # bytes: the list of some thousand machines
MAX_MACHINES = 10_000
AT_FIRST_USE = ConfigDict(defer_build=True)
Word = Annotated[str, Field(max_length=200, pattern=r"^[\x20-\x7e]*$")]


class _Line(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, strict=True, extra="forbid")


class Start(_Line):
    """How the gateway reaches the scheduler. Paths are absolute; empty ones belong to tcp://."""

    kind: Literal["start"] = "start"
    scheduler: str
    ca_file: str
    certfile: str
    keyfile: str
    cage: Literal["require", "best", "off"]


class Submit(_Line):
    """Send a ticket out. `megabytes` of memory are reserved for it on its machine."""

    kind: Literal["submit"] = "submit"
    id: str
    ticket: str = Field(max_length=MAX_TICKET)
    megabytes: int
    priority: int


class Release(_Line):
    """Take a ticket back."""

    kind: Literal["release"] = "release"
    id: str


class Unreachable(_Line):
    """The scheduler can't be reached now; the gateway goes on trying."""

    kind: Literal["unreachable"] = "unreachable"
    reason: Word


class Connected(_Line):
    """The gateway is connected. `cage` names its walls in force, `missing` what could not be put in force."""

    kind: Literal["connected"] = "connected"
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16}$")
    cage: Word
    missing: Word


class Machine(_Line):
    """A worker of the cluster. It gets tickets only if its fingerprint is this service's."""

    name: Word
    version: Word
    fingerprint: str = Field(pattern=r"^[0-9a-f]{0,16}$")
    cage: Word
    threads: int = Field(ge=0, le=4096)
    megabytes: int = Field(ge=0, le=1 << 30)
    decoders: dict[CagedType, Versions] = Field(max_length=8)  # that it uses in its cage, which is wholly in force
    running: bool  # it takes tickets: it is neither paused nor closing


class Machines(_Line):
    kind: Literal["machines"] = "machines"
    machines: tuple[Machine, ...] = Field(max_length=MAX_MACHINES)


class Answered(_Line):
    """A worker's answer, unread."""

    kind: Literal["answered"] = "answered"
    id: str = Field(max_length=64)
    answer: str = Field(max_length=MAX_ANSWER)


class Dropped(_Line):
    """The cluster has lost the ticket. `begun`: with the worker that had it, so that the picture may be the cause."""

    kind: Literal["dropped"] = "dropped"
    id: str = Field(max_length=64)
    begun: bool
    reason: Word


class Ended(_Line):
    """The gateway ends: the connection is lost, or it can't begin."""

    kind: Literal["ended"] = "ended"
    reason: Word


FromGateway = Unreachable | Connected | Machines | Answered | Dropped | Ended
FROM_GATEWAY: TypeAdapter[FromGateway] = TypeAdapter(
    Annotated[FromGateway, Field(discriminator="kind")], config=AT_FIRST_USE
)
FROM_SERVICE: TypeAdapter[Submit | Release] = TypeAdapter(
    Annotated[Submit | Release, Field(discriminator="kind")], config=AT_FIRST_USE
)


def word(text: object) -> str:
    """Any text as a Word: printable, on one line, not too long."""
    return str(text).encode("unicode_escape").decode("ascii")[:200]
