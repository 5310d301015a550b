"""Commands about the operator: who is signed in to the dashboard."""

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import typer

from .options import AsJson, ConfigFile, loaded

if TYPE_CHECKING:
    from ..jobs.data_folder import DataFolder
    from ..jobs.operator_sessions import OperatorSessions
    from ..settings import Settings

operator = typer.Typer(help="The dashboard's sessions.", no_args_is_help=True)
sessions = typer.Typer(help="Who is signed in to the dashboard.", no_args_is_help=True)
operator.add_typer(sessions, name="sessions")

PATH = "/api/v1/operator/sessions"


@sessions.command("list")
def list_sessions(as_json: AsJson = False, config: ConfigFile = None) -> None:
    """List the open sessions, the latest first."""
    from .service_client import running

    settings = loaded(config)
    service = running(settings)
    found: list[dict[str, Any]]
    found = service.call("GET", PATH)["sessions"] if service else _without_service(settings, _listed)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for one in found:
        typer.echo(f"{one['subject'] or 'operator token'}  since {one['opened_at']}  until {one['expires_at']}")
    if not found:
        typer.echo("no one is signed in")


@sessions.command()
def revoke(config: ConfigFile = None) -> None:
    """End all sessions: everyone has to sign in to the dashboard again."""
    from .service_client import running

    settings = loaded(config)
    service = running(settings)
    ended = service.call("DELETE", PATH)["ended"] if service else _without_service(settings, _revoked)
    typer.echo(f"{ended} session{'' if ended == 1 else 's'} ended")


async def _listed(sessions: "OperatorSessions") -> list[dict[str, Any]]:
    return [
        {"subject": one.subject, "opened_at": one.opened_at.isoformat(), "expires_at": one.expires_at.isoformat()}
        for one in sorted(sessions.open_ones(), key=lambda one: one.opened_at, reverse=True)
    ]


async def _revoked(sessions: "OperatorSessions") -> int:
    return await sessions.close_all()


def _without_service(settings: "Settings", work: "Callable[[OperatorSessions], Awaitable[Any]]") -> Any:
    """From the data folder, which is locked for that time. Raises CommandFailed."""
    from ..access.operator_auth import operator_token
    from ..jobs.operator_sessions import OperatorSessions
    from .data_folder import with_data_folder

    async def opened(data: "DataFolder") -> Any:
        return await work(await OperatorSessions.of(settings, data, operator_token(settings)))

    return with_data_folder(settings, opened)
