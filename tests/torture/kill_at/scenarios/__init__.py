"""What is done while a durable call fails. One function for each, by its name in SCENARIOS.

To add one: write a function that takes an Attempt, begins exactly one process by `attempt.serve()` or
`attempt.command()`, and ends a service with `stopped()`. List it below, with what it begins with (`prepare`, done
once), what each copy of that needs beyond its files (`equip`), what an operator would do once more after it was cut
short (`again`), and what it alone promises (`check`). The invariants and the promise of the receipt are looked at after
each case in any event.
"""

from importlib.util import find_spec

from tests.torture.kill_at.case import Scenario
from tests.torture.kill_at.cluster import far, far_with_own_bucket
from tests.torture.kill_at.scenarios import (
    backups,
    changes,
    folders,
    formats,
    jobs,
    machines,
    people,
    pictures,
    sources,
    stored_files,
    uploads,
    webhooks,
)
from tests.torture.kill_at.store import own_bucket

UPLOADS = (
    Scenario("upload", uploads.upload),
    Scenario("upload-in-chunks", uploads.upload_in_chunks),
    Scenario("same-photo-twice", uploads.same_photo_twice, check=uploads.one_image_of_the_key),
    Scenario("reuse", uploads.reuse, prepare=pictures.one_completed, check=uploads.same_variants),
    Scenario(
        "reuse-and-delete",
        uploads.reuse_while_the_first_goes,
        prepare=pictures.one_completed,
        check=uploads.same_variants,
    ),
    Scenario(
        "upload-with-ticket",
        uploads.upload_with_ticket,
        prepare=uploads.a_ticket,
        check=uploads.ticket_is_spent_by_what_was_accepted,
    ),
    Scenario("failing-picture", uploads.failing_picture),
    Scenario("webhooks", webhooks.told, equip=webhooks.own_receiver, check=webhooks.each_arrived),
    Scenario("avif", pictures.upload_with_avif, prepare=pictures.also_as_avif, check=pictures.avif_is_there),
    Scenario("quota", uploads.beyond_the_quota, prepare=uploads.tight),
    Scenario("fetch", uploads.fetch, equip=uploads.own_web, check=uploads.fetched_is_told),
    Scenario("refused-uploads", uploads.refused_uploads, prepare=uploads.few_and_small),
    Scenario("upload-broken-off", uploads.broken_off),
    Scenario("stop-amid-upload", uploads.stopped_amid_upload, prepare=uploads.impatient),
    Scenario("retry-by-itself", uploads.retried_by_itself, prepare=uploads.without_a_bucket, again=uploads.make_room),
    Scenario(
        "upload-to-s3",
        stored_files.upload_to_s3,
        prepare=stored_files.into_s3,
        equip=own_bucket,
        check=stored_files.bucket_is_exact,
    ),
)
JOBS = (
    Scenario("delete-completed", jobs.delete_completed, prepare=pictures.several_completed, check=pictures.same_bytes),
    Scenario("delete-waiting", jobs.delete_waiting),
    Scenario("delete-running", jobs.delete_running),
    Scenario("delete-failed", jobs.delete_failed, prepare=jobs.one_failed),
    Scenario(
        "delete-in-s3",
        stored_files.delete_in_s3,
        prepare=stored_files.one_in_s3,
        equip=own_bucket,
        check=stored_files.bucket_is_exact,
    ),
    Scenario("retry-by-operator", jobs.retry_by_operator, prepare=jobs.one_failed),
    Scenario("retry-by-command", jobs.retry_by_command, prepare=jobs.one_failed),
    Scenario("stop-with-work", jobs.stop_with_work),
    Scenario("operator-session", jobs.sign_in, check=jobs.sessions_end_if_answered),
    Scenario(
        "set-aside",
        jobs.sweep(jobs.is_set_aside),
        prepare=jobs.uploads_without_a_row,
        check=jobs.swept(jobs.is_set_aside),
    ),
    Scenario("expire", jobs.sweep(jobs.is_expired), prepare=jobs.some_expired, check=jobs.swept(jobs.is_expired)),
    Scenario("retention", jobs.sweep(jobs.is_dropped), prepare=jobs.long_ago, check=jobs.swept(jobs.is_dropped)),
)
CHANGES = (
    Scenario("patch", changes.patch, prepare=changes.one_to_change, check=changes.patched_as_a_whole),
    Scenario("formats", formats.upload, prepare=formats.in_avif, check=formats.every_format_or_none),
    Scenario(
        "formats-and-delete", formats.upload_and_delete, prepare=formats.in_avif, check=formats.every_format_or_none
    ),
    Scenario("focal", changes.focal, prepare=changes.with_a_crop, check=changes.every_url_answers),
    Scenario("focal-twice", changes.focal_twice, prepare=changes.with_a_crop, check=changes.every_url_answers),
    Scenario(
        "focal-and-delete", changes.focal_and_delete, prepare=changes.with_a_crop, check=changes.every_url_answers
    ),
    Scenario("kept-source", sources.kept_source, prepare=sources.keeping, check=sources.sources_answer),
    Scenario("drop-sources", sources.drop_sources, prepare=sources.keeping, check=sources.sources_answer),
    Scenario("render-again", sources.render_again, prepare=sources.with_old_sizes, check=sources.all_rendered_again),
)
FOLDERS = (
    Scenario("first-start", folders.first_start),
    Scenario(
        "first-secret",
        folders.token,
        prepare=folders.without_a_secret,
        again=folders.token_again,
        check=folders.token_is_good,
    ),
    Scenario("old-data-folder", folders.start_again, prepare=folders.old_data_folder, check=pictures.same_bytes),
    Scenario("doctor", folders.doctor, prepare=pictures.several_completed, again=stored_files.all_is_well),
    Scenario(
        "adopt", folders.adopt, prepare=folders.folder_of_another, again=folders.adopt_again, check=pictures.all_there
    ),
    Scenario(
        "adopt-without-database",
        folders.adopt,
        prepare=folders.lost_database,
        again=folders.adopt_again_and_tidy,
        check=folders.upload_is_set_aside,
    ),
)
BACKUPS = (
    Scenario("first-backup", backups.backup, prepare=pictures.several_completed, again=backups.backup_again),
    Scenario("backup", backups.backup, prepare=backups.a_former_backup, again=backups.backup_is_whole),
    Scenario(
        "backup-of-a-service",
        backups.backup_of_a_service,
        prepare=backups.a_former_backup,
        again=backups.backup_is_whole,
    ),
    Scenario(
        "backup-that-drops", backups.backup, prepare=backups.a_backup_that_holds_more, again=backups.backup_is_whole
    ),
    Scenario(
        "delete-during-backup",
        backups.delete_during_backup,
        prepare=backups.a_former_backup,
        again=backups.backup_is_whole,
    ),
    Scenario(
        "restore",
        backups.restore,
        prepare=backups.nothing_but_a_backup,
        again=backups.restore_again,
        check=pictures.all_there,
    ),
    Scenario(
        "restore-anew",
        backups.restore_anew,
        prepare=backups.an_empty_machine,
        again=backups.restore_anew_again,
        check=pictures.all_there,
    ),
)
STORED_FILES = (
    Scenario(
        "gc",
        stored_files.gc,
        prepare=stored_files.with_an_orphan,
        again=stored_files.gc_again,
        check=pictures.all_there,
    ),
    Scenario(
        "verify",
        stored_files.verify,
        prepare=pictures.several_completed,
        again=stored_files.all_is_well,
        check=pictures.all_there,
    ),
    Scenario(
        "migrate",
        stored_files.migrate,
        prepare=pictures.several_completed,
        again=stored_files.migrate_again,
        check=pictures.all_there,
    ),
    Scenario(
        "migrate-by-command",
        stored_files.migrate_by_command,
        prepare=pictures.several_completed,
        again=stored_files.migrate_again,
        check=pictures.all_there,
    ),
    Scenario(
        "migrate-to-s3",
        stored_files.migrate_to_s3,
        prepare=pictures.one_completed,
        equip=own_bucket,
        again=stored_files.migrate_to_s3_again,
        check=stored_files.moved_in_s3,
    ),
    Scenario(
        "migrate-from-s3",
        stored_files.migrate_from_s3,
        prepare=stored_files.one_in_s3,
        equip=own_bucket,
        again=stored_files.migrate_from_s3_again,
        check=stored_files.moved_in_s3,
    ),
)
PEOPLE = (
    Scenario("create-key", people.create_key, check=people.key_lets_in),
    Scenario("revoke-key", people.revoke_key, prepare=people.a_key, check=people.key_is_revoked_if_answered),
    Scenario(
        "revoke-and-restore",
        people.revoke_key,
        prepare=people.a_key_in_a_backup,
        again=backups.restore_again,
        check=people.revoked_key_stays_revoked,
    ),
    Scenario("erase", people.erase, prepare=people.somebody, check=people.erased_if_ordered),
    Scenario(
        "restore-what-was-revoked",
        backups.restore,
        prepare=people.much_after_a_backup,
        again=backups.restore_again,
        check=people.restored_and_revoked,
    ),
)
MACHINES = (
    Scenario("render-far", machines.render_far, equip=far, check=machines.nothing_was_counted),
    Scenario("delete-far", machines.delete_far, equip=far, check=machines.nothing_was_counted),
    Scenario(
        "render-far-to-s3",
        machines.render_far,
        prepare=stored_files.into_s3,
        equip=far_with_own_bucket,
        check=machines.incoming_is_empty,
    ),
)
WITH_DASK = MACHINES if find_spec("distributed") else ()
SCENARIOS = {
    one.name: one for one in (*UPLOADS, *JOBS, *CHANGES, *PEOPLE, *FOLDERS, *BACKUPS, *STORED_FILES, *WITH_DASK)
}
