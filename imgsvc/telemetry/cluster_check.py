"""The cluster that renders on other machines, as health and the dashboard show it."""

from collections.abc import Iterator

from ..jobs.cluster.link_state import LinkState
from .health import Check

CLUSTER = "cluster"  # name of the check
NAMED = 5  # machines that a sentence lists


async def cluster_check(state: LinkState, *, insecure: bool) -> Check:
    """Degraded if the scheduler is away, or anything is not as it should be. Lanes of this machine go on meanwhile."""
    faults = list(_faults(state, insecure))
    used = [one for one in state.machines if one.running and one.fingerprint == state.fingerprint]
    places = sum(one.threads for one in used)
    there = f"{len(used)} machines render, {places} pictures at a time; {state.out} tickets are out"
    detail = "; ".join((*faults, there)) if not state.problem else "; ".join(faults)
    return Check(status="degraded" if faults else "healthy", detail=detail)


def _faults(state: LinkState, insecure: bool) -> Iterator[str]:
    if state.problem:
        yield f"not connected: {state.problem}"
    if insecure:
        yield "[workers] insecure = true: who reaches the scheduler can run code in every worker"
    if state.missing:
        yield f"the gateway's cage lacks {state.missing}"
    others = [one for one in state.machines if one.fingerprint != state.fingerprint]
    if others and not state.problem:
        names = ", ".join(f"{one.name} ({one.version})" for one in others[:NAMED])
        yield f"not used, since they run another version of imgsvc or of its decoders: {len(others)}, {names}"
