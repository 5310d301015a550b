"""Stored files: checked, tidied, and moved to another folder or to S3 and back."""

from tests.torture.kill_at.case import Attempt, stopped
from tests.torture.kill_at.scenarios.pictures import all_there, one_completed, several_completed, tiny, upkeep
from tests.torture.kill_at.site import Service
from tests.torture.kill_at.store import bucket_of, keys

UNKNOWN = "00000000-0000-4000-8000-000000000000"
ORPHAN = f"b/processed/large/{UNKNOWN}_large.webp"


def with_an_orphan(attempt: Attempt) -> None:
    several_completed(attempt)
    orphan = attempt.site.folder / "storage" / ORPHAN
    orphan.write_bytes(b"12345")


def gc(attempt: Attempt) -> None:
    attempt.command("storage", "gc", "--yes", "--older-than", "0")


def gc_again(attempt: Attempt) -> None:
    if attempt.site.command("storage", "gc", "--yes", "--older-than", "0") != 0:
        attempt.wrong.append("gc can't be done again.")


def verify(attempt: Attempt) -> None:
    attempt.command("storage", "verify", "--digests", "--grace", "0")


def all_is_well(attempt: Attempt) -> None:
    if attempt.site.command("storage", "verify", "--digests", "--grace", "0") != 0:
        attempt.wrong.append("verify finds faults.")


def migrate(attempt: Attempt) -> None:
    with attempt.serve() as service:
        upkeep(service, "migrate", to="other")
        stopped(attempt, service)


def migrate_again(attempt: Attempt) -> None:
    if attempt.site.command("storage", "migrate", "--to", "other") != 0:
        attempt.wrong.append("A migration that was cut short can't be done again.")
    all_is_well(attempt)


def migrate_by_command(attempt: Attempt) -> None:
    attempt.command("storage", "migrate", "--to", "other")


def migrate_to_s3(attempt: Attempt) -> None:
    with attempt.serve() as service:
        upkeep(service, "migrate", to="s3")
        stopped(attempt, service)


def migrate_to_s3_again(attempt: Attempt) -> None:
    if attempt.site.command("storage", "migrate", "--to", "s3") != 0:
        attempt.wrong.append("A migration to S3 that was cut short can't be done again.")
    all_is_well(attempt)


def migrate_from_s3(attempt: Attempt) -> None:
    with attempt.serve() as service:
        upkeep(service, "migrate", to="local")
        stopped(attempt, service)


def migrate_from_s3_again(attempt: Attempt) -> None:
    if attempt.site.command("storage", "migrate", "--to", "local") != 0:
        attempt.wrong.append("A migration from S3 that was cut short can't be done again.")
    all_is_well(attempt)


def one_in_s3(attempt: Attempt) -> None:
    into_s3(attempt)
    one_completed(attempt)


def into_s3(attempt: Attempt) -> None:
    attempt.site.more = {**attempt.site.more, "STORAGE_BACKEND": "s3"}


def upload_to_s3(attempt: Attempt) -> None:
    with attempt.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny()))
        stopped(attempt, service)


def delete_in_s3(attempt: Attempt) -> None:
    with attempt.serve() as service:
        attempt.delete(service, next(iter(attempt.receipts.values())))
        stopped(attempt, service)


def bucket_is_exact(attempt: Attempt, service: Service) -> None:
    """It holds the variants of the images that are in S3, and nothing else."""
    rows = attempt.rows(
        "SELECT storage_bucket || '/' || path.value FROM processing_jobs, json_each(processed_paths) AS path"
        " WHERE deleted_at IS NULL AND status = 'completed' AND storage_backend = 's3'"
    )
    wanted, found = {row[0] for row in rows}, keys(bucket_of(attempt.site))
    attempt.wrong += [f"S3 lacks {key}." for key in sorted(wanted - found)]
    attempt.wrong += [f"S3 holds {key}, which no row names." for key in sorted(found - wanted)]


def moved_in_s3(attempt: Attempt, service: Service) -> None:
    bucket_is_exact(attempt, service)
    all_there(attempt, service)
