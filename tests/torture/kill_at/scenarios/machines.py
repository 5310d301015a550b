"""Pictures that another machine renders, which puts the variants here, or into S3. Needs Dask."""

from contextlib import suppress

from tests.torture.kill_at.case import Attempt, stopped
from tests.torture.kill_at.scenarios.pictures import tiny
from tests.torture.kill_at.scenarios.stored_files import bucket_is_exact
from tests.torture.kill_at.site import Service, until
from tests.torture.kill_at.store import bucket_of, keys

SWEEP_SECONDS = 30  # housekeeping begins with the service, on a machine that may be busy


def render_far(attempt: Attempt) -> None:
    with attempt.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny()))
        stopped(attempt, service)


def delete_far(attempt: Attempt) -> None:
    """While the ticket is out, or is about to be."""
    with attempt.serve() as service:
        if attempt.upload(service, tiny()):
            attempt.delete(service, *attempt.receipts.values())
        stopped(attempt, service)


def nothing_was_counted(attempt: Attempt, service: Service) -> None:
    """Each job is completed: what a machine, or the service, has lost is no attempt unless a file operation failed."""
    kinds = {"kill", "lose"}
    if attempt.fault is not None and attempt.fault.action in kinds:
        (counted,) = attempt.rows("SELECT coalesce(sum(attempt_count + deaths), 0) FROM processing_jobs")[0]
        attempt.wrong += [f"{counted} attempts are counted."] if counted else []


def incoming_is_empty(attempt: Attempt, service: Service) -> None:
    """Also of a run that was cut short: housekeeping removes that. The bucket holds the variants and nothing else."""
    bucket = bucket_of(attempt.site)
    with suppress(AssertionError):
        until(lambda: not any(key.startswith("incoming/") for key in keys(bucket)), SWEEP_SECONDS)
    bucket_is_exact(attempt, service)
