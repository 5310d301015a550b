"""`imgsvc users`: erase everything of a person, and the reports."""

import json
from typing import Annotated, Any

import typer

from .options import FAILED, WRONG, AsJson, ConfigFile, loaded, stop

users = typer.Typer(help="Erase everything of a person.", no_args_is_help=True)


@users.command()
def erase(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user, as sub of its tokens.")],
    org: Annotated[str, typer.Option(help="The user's organisation.")] = "default-org",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until it has ended.")] = True,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Erase everything of a person: images, files, keys, tickets, and the name in the audit trail. Can't be undone."""
    from .users import erase as begin

    settings = loaded(config)
    if not yes and not typer.confirm(f"Erase everything of the user {user!r} of {org!r}?", err=True):
        stop("nothing was erased", WRONG)

    steps: list[str] = []

    def show(report: dict[str, Any]) -> None:
        if not as_json and report["step"] not in steps:
            steps.append(report["step"])
            typer.echo(f"erasing: {report['step']}", err=True)

    report = begin(settings, org, user, show, wait=wait)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        typer.echo(_words(report))
        typer.echo(f"Not reached: {'; '.join(report['not_reached'])}.")
    if wait and report["state"] != "done":
        stop("some files could not be removed yet: the service goes on with that", FAILED)


@users.command()
def erasures(as_json: AsJson = False, config: ConfigFile = None) -> None:
    """List the latest erasures, without the names of the people."""
    from .users import listed

    found = listed(loaded(config))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for report in found:
        typer.echo(f"{report['started_at'][:16]}Z {_words(report)}")


def _words(report: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in report["counts"].items() if count)
    state = "done" if report["state"] == "done" else f"running ({report['step']})"
    return f"{report['erasure_id']} {state}: {counts or 'nothing was there'}"
