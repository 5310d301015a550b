"""`imgsvc webhooks`: what waits, the delivery log, sending again, a test, and switching on."""

import json
from datetime import datetime
from typing import Annotated

import typer

from .options import FAILED, AsJson, ConfigFile, loaded

webhooks = typer.Typer(help="Webhooks: waiting deliveries, the delivery log, sending again.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name in [[webhooks]].")]


@webhooks.command("list")
def list_webhooks(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show the delivery log of this webhook instead.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many attempts to list.")] = 50,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """List the webhooks with their waiting deliveries, or the latest attempts of one."""
    from .tables import print_attempts, print_webhooks
    from .webhooks import listed, logged

    settings = loaded(config)
    found = listed(settings) if name is None else logged(settings, name, limit)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif name is None:
        print_webhooks(found)
    else:
        print_attempts(found)


@webhooks.command()
def replay(
    name: Name,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"], help="Only events from then on."
        ),
    ] = None,
    image: Annotated[str | None, typer.Option(help="Only events of this image.")] = None,
    delivered: Annotated[bool, typer.Option("--delivered", help="Also those that were delivered.")] = False,
    config: ConfigFile = None,
) -> None:
    """Send deliveries again that were given up, or that are held after a restore. The webhook-id stays the same."""
    from ..jobs.webhook_views import ReplayRequest
    from .webhooks import replay as send_again

    moment = since.astimezone() if since else None
    count = send_again(loaded(config), name, ReplayRequest(since=moment, image_id=image, delivered=delivered))
    typer.echo(f"{count} deliveries wait again")


@webhooks.command("test")
def send_test(name: Name, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Send a signed webhook.test through the running service, and print the response."""
    from .webhooks import test

    found = test(loaded(config), name)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        words = f"status {found['status']}" if found["status"] is not None else f"no answer: {found['reason']}"
        typer.echo(f"{'delivered' if found['ok'] else 'not delivered'}, {words}, {found['milliseconds']} ms")
    raise typer.Exit(0 if found["ok"] else FAILED)


@webhooks.command()
def enable(name: Name, config: ConfigFile = None) -> None:
    """Switch a webhook on again that answered 410. What waits for it is sent at once."""
    from .webhooks import enable as switch_on

    was_off = switch_on(loaded(config), name)
    typer.echo(f"{name} is switched on" if was_off else f"{name} was not switched off")
