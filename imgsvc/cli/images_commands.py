"""`imgsvc images`: list, show, save, change and delete images.

With --server: the images that a token may see, at any service, by means of the client alone. Without it: the images
of all users, as the operator of the service that runs on this machine.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .callers_commands import Token, callers, fetch, ticket, usage, watch
from .options import FAILED, WRONG, AsJson, ConfigFile, act_on_each, loaded, moment, print_found, stop

if TYPE_CHECKING:
    from .callers_images import CallersImages
    from .images import Images

STATUSES = ("pending", "processing", "retrying", "completed", "failed")
Server = Annotated[
    str | None,
    typer.Option(help="Address of a service, whose API is called with --token; the operator's own service otherwise."),
]
images = typer.Typer(help="List, show, save, change and delete images.", no_args_is_help=True)
for command in (fetch, watch, ticket, usage):
    images.command()(command)


@images.command("list")
def list_images(
    org: Annotated[str | None, typer.Option(help="Only images of this organisation.")] = None,
    user: Annotated[str | None, typer.Option(help="Only images of this user of --org (default-org).")] = None,
    whole_org: Annotated[
        bool, typer.Option("--whole-org", help="With --server: the organisation's images, for its image:admin.")
    ] = False,
    bucket: Annotated[str | None, typer.Option(help="Only images of this bucket.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Only images that are pending, processing, retrying, completed or failed.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The beginning of the file name, in upper or lower case.")] = None,
    sha256: Annotated[str | None, typer.Option(help="The SHA-256 of the uploaded bytes.")] = None,
    created_after: Annotated[
        str | None, typer.Option(help="Accepted then or later, such as 2026-03-01T00:00:00Z.")
    ] = None,
    created_before: Annotated[str | None, typer.Option(help="Accepted before.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many images to list.")] = 50,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """List the newest images."""
    from .tables import print_images

    if status is not None and status not in STATUSES:
        stop(f"--status {status}: must be one of {', '.join(STATUSES)}", WRONG)
    if (org or user) if server else whole_org:
        stop("--org and --user are for the operator, without --server; --whole-org is for --server", WRONG)
    whose = {"org": org, "user": user, "scope": "org" if whole_org else None}
    times = {
        "created_after": moment("--created-after", created_after),
        "created_before": moment("--created-before", created_before),
    }
    filters = {**whose, "bucket": bucket, "status": status, "q": name, "sha256": sha256, **times}
    found = list(_images(server, token, config).listed(limit, **filters))
    print_found(found, as_json, print_images)


@images.command()
def show(
    image_id: str,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """Show one image."""
    from .tables import print_image

    found = _images(server, token, config).shown(image_id)
    print_found(found, as_json, print_image)


@images.command()
def get(
    image_id: str,
    size: Annotated[str, typer.Option(help="The name of the variant.")] = "original",
    output: Annotated[Path | None, typer.Option(help="A file; standard output unless given.")] = None,
    server: Server = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """Save the bytes of a variant."""
    from .saving import save

    save(_images(server, token, config).bytes(image_id, size), output)


@images.command()
def patch(
    image_id: str,
    metadata: Annotated[
        str | None, typer.Option(help="A JSON object that is merged into the client's; null removes a member.")
    ] = None,
    expires_at: Annotated[str | None, typer.Option(help="When it expires, such as 2026-03-01T00:00:00Z.")] = None,
    never_expires: Annotated[bool, typer.Option("--never-expires", help="Keep it for good.")] = False,
    focal: Annotated[
        str | None,
        typer.Option(help="What crops are around, in parts of width and height, such as 0.5,0.25; auto: found again."),
    ] = None,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """Change the client's metadata of an image, when it expires, and its focal point."""
    from .tables import print_image

    if expires_at is not None and never_expires:
        stop("--expires-at and --never-expires exclude each other", WRONG)
    expires = moment("--expires-at", expires_at)
    changes: dict[str, Any] = {"expires_at": expires} if expires is not None or never_expires else {}
    if metadata is not None:
        try:
            changes["client_metadata"] = json.loads(metadata)
        except ValueError as error:
            stop(f"--metadata: {error}", WRONG)
    if focal is not None:
        changes["focal"] = None if focal == "auto" else _point(focal)
    if not changes:
        stop("nothing to change: give --metadata, --expires-at, --never-expires or --focal", WRONG)
    found = _images(server, token, config).patch(image_id, changes)
    print_found(found, as_json, print_image)


def _point(text: str) -> dict[str, float]:
    """A focal point; what is none ends the command. The service checks the range."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        stop(f"--focal {text}: must be two numbers from 0 to 1, such as 0.5,0.25, or auto", WRONG)
    return {"x": x, "y": y}


@images.command()
def delete(
    image_ids: list[str],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    server: Server = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """Delete images, with all their files, for good. Asks first at a terminal, and never where there is none."""
    known = _images(server, token, config)
    named = f"the image {image_ids[0]}" if len(image_ids) == 1 else f"{len(image_ids)} images"
    if not yes and sys.stdin.isatty() and not typer.confirm(f"Delete {named} with all files?", err=True):
        stop("nothing was deleted", WRONG)
    act_on_each(image_ids, lambda image_id: f"deleted, {known.delete(image_id)} files removed")


@images.command()
def render(
    size: Annotated[
        list[str] | None, typer.Option(help="A name of [images] sizes; may be given several times. All unless given.")
    ] = None,
    bucket: Annotated[str | None, typer.Option(help="Only images of this bucket.")] = None,
    missing_only: Annotated[
        bool,
        typer.Option(
            "--missing-only", help="Only variants that an image lacks, not those whose settings have changed."
        ),
    ] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the running task instead.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Make new or changed sizes of existing images, while the service runs. Ctrl-C leaves the task running."""
    from . import image_tasks
    from .images import IMAGES, Images
    from .maintenance_output import shown

    service = Images.of(loaded(config)).service
    if cancel:
        found = service.call("DELETE", f"{IMAGES}/task")
    else:
        with shown("render") as show:
            found = image_tasks.render(service, size or (), bucket, show, missing=missing_only)
    typer.echo(image_tasks.as_json(found) if as_json else image_tasks.summary(found))
    raise typer.Exit(FAILED if found["failed"] else 0)


@images.command()
def drop_sources(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigFile = None,
) -> None:
    """Remove the sources that [images] keep_source has kept. The variants stay."""
    from . import image_tasks
    from .images import Images
    from .maintenance_output import shown

    service = Images.of(loaded(config)).service
    if not yes:
        typer.confirm("Remove every kept source? What is rendered later is made from the largest variant", abort=True)
    with shown("drop-sources") as show:
        found = image_tasks.drop_sources(service, show)
    typer.echo(f"{found['images']} sources dropped, {found['bytes']} bytes")


def _images(server: str | None, token: str | None, config: Path | None) -> "CallersImages | Images":
    if server is None:
        from .images import Images

        return Images.of(loaded(config))
    return callers(server, token)
