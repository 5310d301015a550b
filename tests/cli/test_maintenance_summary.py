"""The last line of each maintenance command, for what its report can count."""

from typing import Any

import pytest

from imgsvc.cli.maintenance_summary import restored, summary
from imgsvc.maintenance.requests import BackupRequest, GcRequest, MaintenanceRequest, MigrateRequest, VerifyRequest

VERIFY, MIGRATE, MIGRATE_DRY = VerifyRequest(), MigrateRequest(to="s3"), MigrateRequest(to="s3", dry_run=True)
GC, GC_DRY, GC_FOREIGN = GcRequest(dry_run=False), GcRequest(), GcRequest(dry_run=False, foreign=True)
BACKUP, BACKUP_DRY = BackupRequest(destination="/b"), BackupRequest(destination="/b", dry_run=True)
ONE = {"images": 1, "files": 4, "bytes": 1_234_567}


def task(counts: dict[str, int], found: int = 0) -> dict[str, Any]:
    return {"counts": counts, "found": found}


@pytest.mark.parametrize(
    ("request_", "counts", "found", "expected"),
    [
        (VERIFY, {}, 0, "verify: 0 images, 0 files, 0.0 MB: all is well"),
        (VERIFY, ONE, 0, "verify: 1 images, 4 files, 1.2 MB: all is well"),
        (
            VERIFY,
            ONE | {"missing": 2, "orphaned": 1, "set_aside": 3},
            3,
            "verify: 1 images, 4 files, 1.2 MB: 2 missing, 1 orphaned; 3 uploads without a row are set aside",
        ),
        (GC, {}, 0, "gc: removed 0 files, 0.0 MB"),
        (
            GC,
            {"removed": 2, "removed_bytes": 5_000_000, "not_removed": 1, "foreign": 4},
            3,
            "gc: removed 2 files, 5.0 MB; 1 could not be removed; 4 foreign files left alone",
        ),
        (GC_FOREIGN, {"removed": 2, "foreign": 2}, 2, "gc: removed 2 files, 0.0 MB"),
        (
            GC_DRY,
            {"orphaned_bytes": 1_000_000, "foreign_bytes": 500_000, "foreign": 1},
            2,
            "gc: would remove 2 files, 1.5 MB; 1 foreign files left alone. Add --yes to remove them.",
        ),
        (MIGRATE, ONE, 0, "migrate: moved 1 images, 4 files, 1.2 MB to s3"),
        (MIGRATE_DRY, ONE, 0, "migrate: would move 1 images, 4 files, 1.2 MB to s3"),
        (
            MIGRATE,
            ONE | {"unfinished": 1, "old_copies_left": 2, "old_copies_removed": 3, "not_moved": 1},
            1,
            "migrate: moved 1 images, 4 files, 1.2 MB to s3; 1 are still being processed: run this again; "
            "2 old copies could not be removed: the next run or gc will; "
            "3 copies left by an earlier run were removed; 1 not moved",
        ),
        (
            BACKUP,
            {"variants": 8, "variants_bytes": 2_000_000, "sources": 1, "copied": 5},
            0,
            "backup: 8 variants (2.0 MB), 1 waiting uploads, the database and the secrets; 5 are new",
        ),
        (
            BACKUP,
            {"elsewhere": 4, "missing": 1},
            1,
            "backup: 0 variants (0.0 MB), 0 waiting uploads, the database and the secrets; 0 are new; "
            "4 files stay in their backend (--with-s3 copies them); 1 missing",
        ),
        (
            BACKUP_DRY,
            {"files": 9, "bytes": 3_000_000, "new_bytes": 1_000_000},
            0,
            "backup: would contain 9 files, 3.0 MB; 1.0 MB would be copied",
        ),
    ],
)
def test_summary(request_: MaintenanceRequest, counts: dict[str, int], found: int, expected: str) -> None:
    assert summary(request_, task(counts, found)) == expected


@pytest.mark.parametrize(
    ("counts", "dry_run", "expected"),
    [
        (
            {"files": 8, "bytes": 2_000_000, "sources": 1},
            False,
            "restore: 8 variants (2.0 MB) and 1 waiting uploads are back. "
            "Start the service, then: imgsvc storage verify",
        ),
        ({"files": 8}, True, "restore: the backup is complete: 8 files. Nothing was written."),
        (
            {"files": 8, "in_the_way": 1},
            True,
            "restore: the backup is complete: 8 files. Nothing was written. "
            "There is already data here; only --force moves it aside.",
        ),
    ],
)
def test_restored(counts: dict[str, int], dry_run: bool, expected: str) -> None:
    assert restored(task(counts), dry_run=dry_run) == expected
