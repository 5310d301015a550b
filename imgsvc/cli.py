"""The command line. Nothing heavy is imported before a command needs it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import __version__

app = typer.Typer(
    name="imgsvc",
    help="An image service that a self-hoster trusts like a mailbox.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings file; ./config.toml if there is one.")]


def main() -> None:
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imgsvc {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; [server] host.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port to listen on, 0 for a free one; [server] port.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Run the service."""
    from . import server
    from .settings import Settings, SettingsError

    try:
        settings = Settings.load(config)
        given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
        merged = settings.server.model_copy(update=given)
        status = server.run(settings.model_copy(update={"server": merged}))
    except (SettingsError, server.CantStart) as error:
        _stop(str(error))
    raise typer.Exit(status)


@app.command()
def token(
    sub: Annotated[str, typer.Option(help="Whose token it is: the user's name.")],
    org: Annotated[str, typer.Option(help="The user's organisation.")] = "default-org",
    permission: Annotated[list[str] | None, typer.Option(help="A permission to grant; may be repeated.")] = None,
    ttl: Annotated[int, typer.Option(min=1, help="Seconds until it expires.")] = 3600,
    config: ConfigFile = None,
) -> None:
    """Print a token for the API."""
    from .access.tokens import TokenInvalid, Tokens
    from .settings import Settings, SettingsError

    try:
        tokens = Tokens.of(Settings.load(config))
    except (SettingsError, OSError) as error:
        _stop(str(error))
    text = tokens.issue(sub, org, permission or [], ttl)
    try:
        tokens.verify(text)
    except TokenInvalid:
        _stop("--sub and --org must be printable and have 1 to 255 characters")
    typer.echo(text)


def _stop(reason: str) -> None:
    typer.echo(f"imgsvc: {reason}", err=True)
    sys.exit(2)
