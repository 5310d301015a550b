"""Shared by the commands: options, exit statuses, loading settings, printing results, and stopping with a reason."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from ..settings import Settings

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Settings file; by default ./config.toml, if it exists.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
T = TypeVar("T")
FAILED, WRONG, INTERRUPTED = 1, 2, 130  # exit statuses


def loaded(config: Path | None) -> "Settings":
    """Load the settings; invalid ones end the command."""
    from ..settings import Settings, SettingsError

    try:
        return Settings.load(config)
    except SettingsError as error:
        stop(str(error), WRONG)


def moment(option: str, text: str | None) -> str | None:
    """A time as the API takes it; one that is none ends the command."""
    from datetime import datetime

    try:
        found = datetime.fromisoformat(text) if text is not None else None
    except ValueError:
        found = datetime.min
    if found is None:
        return None
    if found.tzinfo is None:
        stop(
            f"{option} {text}: must be a day and time with an offset from UTC, such as 2027-03-01T09:30:00+01:00", WRONG
        )
    return found.isoformat()


def stop(reason: str, status: int) -> NoReturn:
    """Print one line to standard error and exit."""
    typer.echo(f"imgsvc: {reason}", err=True)
    sys.exit(status)


def print_found(found: T, as_json: bool, print_for_people: Callable[[T], None]) -> None:
    """Print a command's result, with `--json` as JSON."""
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_for_people(found)


def act_on_each(names: Iterable[str], act: Callable[[str], str]) -> None:
    """Do the same for each name, print what `act` returns, go on after a CommandFailed, and end the command.

    The exit status is FAILED if one was refused.
    """
    from .errors import CommandFailed

    refused = 0
    for name in names:
        try:
            done = act(name)
        except CommandFailed as error:
            refused += 1
            typer.echo(f"imgsvc: {name}: {error}", err=True)
        else:
            typer.echo(f"{name}: {done}")
    raise typer.Exit(FAILED if refused else 0)
