"""Which types this service decodes now: the caged ones only where a worker has reported that it decodes them so."""

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from .cage import Posture

HEIC, AVIF = "image/heic", "image/avif"
WITH_THREADS = (HEIC,)  # libde265 decodes in a thread, though in a single one
CAGED = (HEIC, AVIF)  # decoded in the cage or not at all


class Decodes(Protocol):
    """A lane, as far as it is asked here. The decoders of one that is not local are used in a cage that is in force."""

    @property
    def local(self) -> bool: ...
    @property
    def posture(self) -> Posture | None: ...
    @property
    def decoders(self) -> Mapping[str, str]: ...


def is_in_force(posture: Posture | None) -> bool:
    """Whether every wall of the cage stands."""
    return posture is not None and bool(posture.landlock_abi) and posture.seccomp and posture.limits


def accepted_types(allowed: Iterable[str], lanes: Collection[Decodes]) -> tuple[str, ...]:
    """The types of `allowed` that every lane decodes, in their order. A lane that has not started decides nothing."""
    known = [lane for lane in lanes if lane.posture is not None or not lane.local]
    caged = {
        mime
        for mime in CAGED
        if known and all((not lane.local or is_in_force(lane.posture)) and mime in lane.decoders for lane in known)
    }
    return tuple(mime for mime in allowed if mime not in CAGED or mime in caged)
