"""`imgsvc storage …`. Nothing heavy is imported before a command needs it.

Exit status: 0 all is well or was done, 1 something was found or could not be done, 2 wrong arguments or settings, 130
after Ctrl-C: the task ended cleanly, and running the command again continues it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .options import FAILED, INTERRUPTED, WRONG, AsJson, ConfigFile, loaded, stop

if TYPE_CHECKING:
    from ..maintenance.requests import MaintenanceRequest
    from .polling import Show

storage = typer.Typer(help="Check, clean up, move, back up and restore the stored files.", no_args_is_help=True)
Listed = Annotated[int, typer.Option("--list", min=0, max=1000, help="How many findings to list; all are counted.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]
LISTED = 100


@storage.command()
def verify(
    digests: Annotated[bool, typer.Option("--digests", help="Also read every file and compare its SHA-256.")] = False,
    grace: Annotated[
        float, typer.Option(min=0, max=366 * 24, help="Hours: files without a row that are younger are not reported.")
    ] = 1,
    listed: Listed = LISTED,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Compare the table with the stored files, both ways. Exit status 1: something is wrong."""
    from ..maintenance.requests import VerifyRequest

    _carried_out(config, VerifyRequest(digests=digests, grace_seconds=grace * 3600, listed=listed), as_json)


@storage.command()
def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Remove them. Without it they are only listed.")] = False,
    dry_run: DryRun = False,
    older_than: Annotated[
        float, typer.Option(min=0, max=366 * 24, help="Hours: only files that have not changed for this long.")
    ] = 24,
    foreign: Annotated[
        bool, typer.Option("--foreign", help="Also files whose names this program does not use.")
    ] = False,
    listed: Listed = LISTED,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Remove files without a row. They can't be recovered, so this is a dry run without --yes."""
    from ..maintenance.requests import GcRequest

    request = GcRequest(
        older_than_seconds=older_than * 3600, foreign=foreign, dry_run=dry_run or not yes, listed=listed
    )
    _carried_out(config, request, as_json)


@storage.command()
def migrate(
    to: Annotated[str, typer.Option(help="The backend to move to: s3 or local.")],
    dry_run: DryRun = False,
    listed: Listed = LISTED,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Move all images to another backend while they are served. Exit status 1: some have not been moved yet."""
    from pydantic import ValidationError

    from ..maintenance.requests import MigrateRequest

    try:
        request = MigrateRequest(to=to, dry_run=dry_run, listed=listed)
    except ValidationError:
        stop(f"--to {to}: must be the name of a backend: s3 or local", WRONG)
    _carried_out(config, request, as_json)


@storage.command()
def backup(
    destination: Annotated[
        Path, typer.Argument(help="A folder on the service's machine: new, empty, or an earlier backup.")
    ],
    with_s3: Annotated[bool, typer.Option("--with-s3", help="Also copy the files of other backends.")] = False,
    digests: Annotated[bool, typer.Option("--digests", help="Also read the files of the earlier backup.")] = False,
    dry_run: DryRun = False,
    listed: Listed = LISTED,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Copy everything, as of one moment, while the service runs. Exit status 1: the backup is not complete."""
    from pydantic import ValidationError

    from ..maintenance.requests import BackupRequest

    try:
        request = BackupRequest(
            destination=str(destination.absolute()), with_s3=with_s3, digests=digests, dry_run=dry_run, listed=listed
        )
    except ValidationError:
        stop(f"{destination} is not a valid folder name", WRONG)
    _carried_out(config, request, as_json)


@storage.command()
def restore(
    source: Annotated[Path, typer.Argument(help="The folder of a backup.")],
    force: Annotated[bool, typer.Option("--force", help="Move existing data aside.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the whole backup.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Restore a backup while no service runs. The whole backup is checked before anything is written."""
    from . import maintenance_online as command
    from .maintenance_summary import restored

    settings = loaded(config)
    _run(
        "restore",
        lambda show: command.restore(settings, source, show, force=force, dry_run=dry_run),
        lambda task: restored(task, dry_run=dry_run),
        as_json,
    )


@storage.command()
def adopt(
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without it the findings are only shown.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Assign the data and storage folders to this database, while no service runs. Removes nothing.

    For a new storage folder of an existing database, or if the database was lost.
    """
    import json
    from dataclasses import asdict

    from .adopt import adopted, words

    found = adopted(loaded(config), dry_run=not yes)
    typer.echo(json.dumps(asdict(found), indent=2) if as_json else words(found))


def _carried_out(config: Path | None, request: "MaintenanceRequest", as_json: bool) -> None:
    from .maintenance_online import carry_out
    from .maintenance_summary import summary

    settings = loaded(config)
    _run(request.verb, lambda show: carry_out(settings, request, show), lambda task: summary(request, task), as_json)


def _run(
    verb: str,
    work: "Callable[[Show], dict[str, Any]]",
    summary: Callable[[dict[str, Any]], str],
    as_json: bool,
) -> NoReturn:
    from .maintenance_output import print_ended, shown

    try:
        with shown(verb) as show:
            task = work(show)
    except KeyboardInterrupt:
        stop(f"{verb} was cancelled. Run it again to continue.", INTERRUPTED)
    words = {
        "cancelled": f"{verb} was cancelled by another command or by a stop of the service. Run it again to continue.",
        "failed": task["error"],
    }.get(task["state"])
    print_ended(task, None if words else summary(task), as_json=as_json)
    if words and not as_json:
        stop(words, FAILED)
    raise typer.Exit(0 if task["state"] == "done" and task["well"] else FAILED)
