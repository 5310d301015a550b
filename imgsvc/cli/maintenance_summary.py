"""The line that says how a maintenance task went, from the counts of its report."""

from collections import Counter
from typing import Any

from ..maintenance.requests import BackupRequest, GcRequest, MaintenanceRequest, MigrateRequest, VerifyRequest

Counts = Counter[str]  # 0 for what a report does not count
Task = dict[str, Any]  # the JSON of a task, which a service sends too
KINDS = {
    "missing": "missing",
    "wrong_size": "wrong size",
    "wrong_digest": "damaged",
    "unreadable": "can't be read",
    "no_source": "upload missing",
    "no_backend": "backend not configured",
    "orphaned": "orphaned",
    "foreign": "foreign",
    "not_removed": "not removed",
    "not_moved": "not moved",
}


def summary(request: MaintenanceRequest, task: Task) -> str:
    match request:
        case VerifyRequest():
            return verified(task)
        case GcRequest():
            return collected(task, request)
        case MigrateRequest():
            return migrated(task, request)
        case BackupRequest():
            return backed_up(task, request)
    raise TypeError(request.verb)


def verified(task: Task) -> str:
    counts = Counts(task["counts"])
    aside = f"; {counts['set_aside']} uploads without a row are set aside" if counts["set_aside"] else ""
    return f"verify: {_images(counts)}: {_found(task) if task['found'] else 'all is well'}{aside}"


def collected(task: Task, request: GcRequest) -> str:
    counts = Counts(task["counts"])
    left = f"; {counts['foreign']} foreign files left alone" if counts["foreign"] and not request.foreign else ""
    if request.dry_run:
        size = megabytes(counts["orphaned_bytes"] + counts["foreign_bytes"])
        return f"gc: would remove {task['found']} files, {size}{left}. Add --yes to remove them."
    failed = f"; {counts['not_removed']} could not be removed" if counts["not_removed"] else ""
    return f"gc: removed {counts['removed']} files, {megabytes(counts['removed_bytes'])}{failed}{left}"


def migrated(task: Task, request: MigrateRequest) -> str:
    counts = Counts(task["counts"])
    words = f"migrate: {'would move' if request.dry_run else 'moved'} {_images(counts)} to {request.to}"
    if counts["unfinished"]:
        words += f"; {counts['unfinished']} are still being processed: run this again"
    if counts["old_copies_left"]:
        words += f"; {counts['old_copies_left']} old copies could not be removed: the next run or gc will"
    if counts["old_copies_removed"]:
        words += f"; {counts['old_copies_removed']} copies left by an earlier run were removed"
    return f"{words}; {_found(task)}" if task["found"] else words


def backed_up(task: Task, request: BackupRequest) -> str:
    counts = Counts(task["counts"])
    if request.dry_run:
        size, new = megabytes(counts["bytes"]), megabytes(counts["new_bytes"])
        return f"backup: would contain {counts['files']} files, {size}; {new} would be copied"
    words = (
        f"backup: {counts['variants']} variants ({megabytes(counts['variants_bytes'])}), "
        f"{counts['sources']} waiting uploads, the database and the secrets; {counts['copied']} are new"
    )
    if counts["elsewhere"]:
        words += f"; {counts['elsewhere']} files stay in their backend (--with-s3 copies them)"
    return f"{words}; {_found(task)}" if task["found"] else words


def restored(task: Task, *, dry_run: bool) -> str:
    counts = Counts(task["counts"])
    if dry_run:
        occupied = " There is already data here; only --force moves it aside." if counts["in_the_way"] else ""
        return f"restore: the backup is complete: {counts['files']} files. Nothing was written.{occupied}"
    words = (
        f"restore: {counts['files']} variants ({megabytes(counts['bytes'])}) and {counts['sources']} waiting uploads "
        "are back. Start the service, then: imgsvc storage verify"
    )
    if counts["unknown_revocations"]:
        return (
            f"{words}\nWithout the revocations.jsonl of the lost data folder it is not known which keys were revoked "
            "and which people erased since this backup: check imgsvc keys list, and erase again whom you had erased."
        )
    again = counts["known_revocations"]
    return (
        f"{words}\nThe start revokes and erases again what revocations.jsonl says ({again} lines)." if again else words
    )


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _images(counts: Counts) -> str:
    return f"{counts['images']} images, {counts['files']} files, {megabytes(counts['bytes'])}"


def _found(task: Task) -> str:
    return ", ".join(f"{task['counts'][kind]} {words}" for kind, words in KINDS.items() if task["counts"].get(kind))
