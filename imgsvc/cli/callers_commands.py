"""`imgsvc images fetch|watch|ticket|usage`: what a token or an API key may do at any service, beside its images."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import FAILED, WRONG, AsJson, print_found, stop

if TYPE_CHECKING:
    from ..client import Event
    from .callers_images import CallersImages

WAIT_SECONDS = 300.0
Token = Annotated[
    str | None,
    typer.Option(envvar="IMGSVC_TOKEN", help="With --server: a user's token or an API key.", show_default=False),
]
Service = Annotated[str, typer.Option("--server", help="Address of the service.")]
Bucket = Annotated[str, typer.Option(help="The bucket.")]


def fetch(url: str, server: Service, bucket: Bucket = "photos", token: Token = None, as_json: AsJson = False) -> None:
    """Let the service fetch an image from an address, if its [fetch] allowed_hosts allow that, and wait for it."""
    from .tables import print_image

    found = callers(server, token).fetch(url, bucket, WAIT_SECONDS)
    print_found(found, as_json, print_image)


def watch(
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB_ID...", help="At most 100.")],
    server: Service,
    token: Token = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each event.")] = False,
) -> None:
    """Print what happens to jobs as it happens, until each has ended. A lost connection is made again.

    Without a token the addresses of images are missing where reading is private. Fails if a job has.
    """
    from .callers_images import PATIENT, CallersImages

    failed = False
    for event in CallersImages(server, token, PATIENT).events(job_ids):
        typer.echo(json.dumps({"event": event.kind, **event.data}) if as_json else _words(event))
        failed |= event.kind == "end" and event.data["status"] != "completed"
    raise typer.Exit(FAILED if failed else 0)


def _words(event: "Event") -> str:
    """An event on one line."""
    names = ("variant", "url") if event.kind == "ready" else ("status", "error_code", "error")
    text = " ".join(str(event.data[name]) for name in names if event.data.get(name) is not None)
    return f"{event.job_id} {event.kind}: {text}"


def ticket(
    server: Service,
    bucket: Bucket = "photos",
    uploads: Annotated[int, typer.Option(min=1, help="How many uploads it is good for.")] = 1,
    expires_in: Annotated[int, typer.Option(min=1, help="Seconds until it ends.")] = 600,
    max_bytes: Annotated[int | None, typer.Option(min=1, help="The largest file.")] = None,
    accept: Annotated[
        list[str] | None, typer.Option(help="Such as image/png; may be repeated. All unless given.")
    ] = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Print the address of a new upload ticket: anyone who has it can upload as you. It expires by itself."""
    limits: dict[str, Any] = {"uploads": uploads, "expires_in": expires_in, "max_bytes": max_bytes}
    found = callers(server, token).ticket(bucket, **limits, allowed_types=accept or None)
    typer.echo(json.dumps(found, indent=2) if as_json else found["upload_url"])


def usage(server: Service, token: Token = None, as_json: AsJson = False) -> None:
    """Print what you have stored, and which uploads and bytes are left."""
    found = callers(server, token).usage()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for whose, words in (("user", "you"), ("org", "your organisation")):
        if one := found.get(whose):
            limit = found["limits"][f"bytes_per_{whose}"]
            of = f" of {limit}" if limit else ""
            typer.echo(f"{words}: {one['images']} images, {one['bytes']} bytes{of}")
    typer.echo(f"uploads left: {found['user']['uploads_left']} until {found['user']['resets_at']}")


def callers(server: str, token: str | None) -> "CallersImages":
    from .callers_images import CallersImages

    if not token:
        stop("pass a token with --token or in IMGSVC_TOKEN", WRONG)
    return CallersImages(server, token)
