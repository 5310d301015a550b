"""Backups: made by a command and by a service, over a former one, and put back."""

import shutil

from imgsvc.jobs.lock import RESTORING
from tests.torture.kill_at.case import Attempt, stopped
from tests.torture.kill_at.scenarios.pictures import one_completed, several_completed, shown, tiny, upkeep


def backup(attempt: Attempt) -> None:
    attempt.memory["status"] = attempt.command("storage", "backup", str(attempt.site.backup))


def backup_of_a_service(attempt: Attempt) -> None:
    with attempt.serve() as service:
        upkeep(service, "backup", destination=str(attempt.site.backup))
        stopped(attempt, service)


def a_former_backup(attempt: Attempt) -> None:
    one_completed(attempt)
    assert attempt.site.command("storage", "backup", str(attempt.site.backup)) == 0
    with attempt.site.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny(5)))
        stopped(attempt, service)


def backup_is_whole(attempt: Attempt) -> None:
    """The former one after it was cut short; then a new one can be made."""
    if attempt.site.command("storage", "restore", str(attempt.site.backup), "--dry-run") != 0:
        attempt.wrong.append("The former backup is not whole any more.")
    backup_again(attempt)


def backup_again(attempt: Attempt) -> None:
    """It goes to its end, and leaves nothing of the one that was cut short. One that said it was made is there."""
    made = attempt.memory.get("status") == 0
    if made and attempt.site.command("storage", "restore", str(attempt.site.backup), "--dry-run") != 0:
        attempt.wrong.append("The backup that was made is not whole.")
    if attempt.site.command("storage", "backup", str(attempt.site.backup)) != 0:
        attempt.wrong.append("A backup can't be made any more.")
    partial = sorted(str(path.relative_to(attempt.site.backup)) for path in attempt.site.backup.rglob("*.partial"))
    if partial:
        attempt.wrong.append(f"The next backup leaves {partial} of the one that was cut short.")
    if attempt.site.command("storage", "restore", str(attempt.site.backup), "--dry-run") != 0:
        attempt.wrong.append("The backup is not whole.")


def nothing_but_a_backup(attempt: Attempt) -> None:
    a_former_backup(attempt)
    assert attempt.site.command("storage", "backup", str(attempt.site.backup)) == 0
    with attempt.site.serve() as service:
        for image_id in attempt.receipts.values():
            attempt.memory[image_id] = shown(service, image_id)
        stopped(attempt, service)


def restore(attempt: Attempt) -> None:
    attempt.memory["status"] = attempt.command("storage", "restore", str(attempt.site.backup), "--force")


def restore_again(attempt: Attempt) -> None:
    """With or without --force, it goes on to its end. One that said it was over has left nothing that keeps a start."""
    if attempt.memory.pop("status", None) == 0 and (attempt.site.data / RESTORING).exists():
        attempt.wrong.append("A restore that was over keeps the service from starting.")
    if attempt.site.command("storage", "restore", str(attempt.site.backup), "--force") != 0:
        attempt.wrong.append("A restore that was cut short can't be done again.")


def a_backup_that_holds_more(attempt: Attempt) -> None:
    """One of its images has been deleted since: the next backup drops its files."""
    several_completed(attempt)
    assert attempt.site.command("storage", "backup", str(attempt.site.backup)) == 0
    with attempt.site.serve() as service:
        attempt.delete(service, next(iter(attempt.receipts.values())))
        stopped(attempt, service)


def delete_during_backup(attempt: Attempt) -> None:
    """No file of the image goes before the backup is over."""
    with attempt.serve() as service:
        image_id = next(iter(attempt.receipts.values()))
        upkeep(
            service, "backup", meanwhile=lambda: attempt.delete(service, image_id), destination=str(attempt.site.backup)
        )
        stopped(attempt, service)


def an_empty_machine(attempt: Attempt) -> None:
    """A backup, and nothing else."""
    nothing_but_a_backup(attempt)
    for name in ("data", "storage", "other"):
        shutil.rmtree(attempt.site.folder / name, ignore_errors=True)


def restore_anew(attempt: Attempt) -> None:
    attempt.command("storage", "restore", str(attempt.site.backup))


def restore_anew_again(attempt: Attempt) -> None:
    """One that was over already is refused: there is data here. The start and the look at the images say the rest."""
    attempt.site.command("storage", "restore", str(attempt.site.backup))
