"""The command line. Nothing heavy is imported before a command needs it.

Exit status: 0 done, 1 understood but without success, 2 wrong arguments or settings.
"""

import json
import os
import re
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from .. import __version__
from ..imaging import simd
from .images_commands import images
from .imports import without, without_collections
from .keys_commands import keys
from .maintenance import storage
from .narrowed import narrowed
from .operator import operator
from .options import FAILED, WRONG, AsJson, ConfigFile, act_on_each, loaded, print_found, stop
from .upload_command import upload
from .users_commands import users
from .webhook_commands import webhooks

app = typer.Typer(
    name="imgsvc",
    help="A self-hosted image service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # as rich markup, [server] would be a style, and not be shown
)
jobs = typer.Typer(help="List and show jobs, and retry failed ones.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")
permissions = typer.Typer(help="Cached decisions of the authorization server.", no_args_is_help=True)
app.add_typer(permissions, name="permissions")
app.add_typer(operator, name="operator")
app.add_typer(storage, name="storage")
app.add_typer(webhooks, name="webhooks")
app.command()(upload)
app.add_typer(images, name="images")
app.add_typer(keys, name="keys")
app.add_typer(users, name="users")


def main() -> None:
    from .errors import CommandFailed
    from .streams import open_standard_streams

    open_standard_streams()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # a search for some reads every installed package
    try:
        simd.choose()
    except simd.UnsuitableProcessor as error:
        stop(str(error), WRONG)
    try:
        narrowed(app, sys.argv[1:])()
    except CommandFailed as error:
        stop(str(error), FAILED)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imgsvc {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on, or unix:/PATH; [server] host.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port to listen on, 0 for a free one; [server] port.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Run the service."""
    with without_collections(), without("rich"):  # rich's tracebacks show local variables, which we never want
        from ..service import server
        from ..service.listener import CantStart

    settings = loaded(config)
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    merged = settings.server.model_copy(update=given)
    try:
        status = server.run(settings.model_copy(update={"server": merged}))
    except CantStart as error:
        stop(str(error), WRONG)
    raise typer.Exit(status)


@app.command()
def worker(
    scheduler: Annotated[
        str | None, typer.Option(help="Address of the cluster's scheduler, tls://HOST:PORT; [workers] scheduler.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, max=256, help="Pictures rendered at the same time; [workers] count.")
    ] = None,
    memory_mb: Annotated[
        int | None, typer.Option(min=1, help="Memory of all its processes, in MB; [workers] memory_mb.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Render pictures of a service on another machine, as a worker of its Dask cluster. Needs imgsvc[dask]."""
    from .cluster import work

    given = {"scheduler": scheduler, "count": count, "memory_mb": memory_mb}
    raise typer.Exit(work(loaded(config), {name: value for name, value in given.items() if value is not None}))


@app.command()
def scheduler(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on, 0 for a free one.")] = 8786,
    http_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of health and metrics, on 127.0.0.1 only.")
    ] = 8787,
    config: ConfigFile = None,
) -> None:
    """Run the scheduler of a Dask cluster that renders for a service. Needs imgsvc[dask]."""
    from .cluster import schedule

    raise typer.Exit(schedule(loaded(config), host, port, http_port))


@app.command()
def token(
    sub: Annotated[str, typer.Option(help="The user's name.")],
    org: Annotated[str, typer.Option(help="The user's organisation.")] = "default-org",
    permission: Annotated[list[str] | None, typer.Option(help="A permission to grant; may be repeated.")] = None,
    ttl: Annotated[int, typer.Option(min=1, help="Seconds until it expires.")] = 3600,
    config: ConfigFile = None,
) -> None:
    """Print a token for the API."""
    from asyncio import run

    from ..access.tokens import NotOurs, TokenInvalid, Tokens
    from ..settings import SettingsError

    settings = loaded(config)
    own_secret = settings.auth.own_keys and not settings.auth.jwt_secret_key
    unused = own_secret and not settings.database.path.exists()
    try:
        tokens = Tokens.of(settings)
        text = tokens.issue(sub, org, permission or [], ttl)
    except (SettingsError, OSError) as error:
        stop(str(error), WRONG)
    except NotOurs as error:
        stop(str(error), FAILED)
    try:
        run(tokens.verify(text))
    except TokenInvalid:
        stop("--sub and --org must be printable and have 1 to 255 characters", WRONG)
    if unused:
        words = f"no service has used the data folder {settings.data.absolute()} yet: the token is for one that will"
        typer.echo(f"imgsvc: {words}", err=True)
    typer.echo(text)


@app.command()
def dashboard(config: ConfigFile = None) -> None:
    """Print a link that signs a browser in to the dashboard. It is valid once, for ten minutes."""
    from ..access.operator_auth import login_code
    from .service_client import running

    settings = loaded(config)
    service = running(settings)
    if service is None:
        stop(f"no service runs on the data folder {settings.data}; start it with: imgsvc serve", FAILED)
    code = login_code(service.token, service.run)
    address = settings.service.public_url or service.address
    if address.startswith("unix:"):
        stop(f"the service listens on {address}: set PUBLIC_URL to the address of its proxy", FAILED)
    typer.echo(f"{address}/dashboard#code={code}")


@app.command()
def health(
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 3,
    config: ConfigFile = None,
) -> None:
    """Check whether the running service is alive (exit status 0). For a container's health check."""
    from .service_client import running

    settings = loaded(config)
    service = running(settings)
    if service is None:
        stop(f"no service runs on the data folder {settings.data}", FAILED)
    typer.echo(service.call("GET", "/api/v1/health/live", timeout=timeout, as_operator=False)["status"])


@app.command()
def doctor(as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Check this machine and its settings for common faults. Changes nothing and needs no running service."""
    from ..telemetry.logs import configure
    from .doctor import examine
    from .marks import print_tick

    settings, examined = loaded(config), []
    configure(settings.log.model_copy(update={"level": "WARNING"}))  # to standard error, separate from the output
    for one in examine(settings):
        examined.append(one)
        if not as_json:
            print_tick(one.finding.status, one.check, one.finding.said, one.finding.advice)
    if as_json:
        typer.echo(json.dumps([one.as_json for one in examined], indent=2))
    raise typer.Exit(FAILED if any(one.finding.status == "wrong" for one in examined) else 0)


@app.command()
def smoke(
    url: Annotated[str, typer.Argument(help="Address of any running instance, with its path prefix if it has one.")],
    token: Annotated[
        str | None,
        typer.Option(
            envvar="IMGSVC_TOKEN", help="A token that may upload. For a service on this machine one is created."
        ),
    ] = None,
    bucket: Annotated[str, typer.Option(help="Bucket for the photo.")] = "smoke",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for all steps together.")] = 30,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Upload a photo to a running instance, check the results, and delete it. Useful after an upgrade."""
    from .marks import print_tick
    from .smoke import Smoke
    from .smoke.token import NoToken, own_token

    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url):
        stop(f"{url}: must be an absolute http(s) URL without a query", WRONG)
    try:
        token = token or own_token(loaded(config), url)
    except NoToken as error:
        stop(f"pass a token for {url} with --token or in IMGSVC_TOKEN: {error}", WRONG)
    steps = []
    with Smoke(url, token, bucket, timeout) as tour:
        for step in tour.steps():
            steps.append(step)
            if not as_json:
                print_tick("well" if step.passed else "wrong", step.name, f"{step.milliseconds:>6} ms  {step.said}")
    if as_json:
        typer.echo(json.dumps([asdict(step) for step in steps], indent=2))
    raise typer.Exit(0 if all(step.passed for step in steps) else FAILED)


@jobs.command("list")
def list_jobs(
    status: Annotated[
        str | None, typer.Option(help="Only jobs that are pending, processing, retrying, completed or failed.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many jobs to list.")] = 20,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """List the newest jobs."""
    from ..jobs.table.model import STATUSES
    from .jobs import jobs_of
    from .tables import print_jobs

    if status is not None and status not in STATUSES:
        stop(f"--status {status}: must be one of {', '.join(STATUSES)}", WRONG)
    found = jobs_of(loaded(config)).listed(status, limit)
    print_found(found, as_json, print_jobs)


@jobs.command()
def show(job_id: str, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Show one job with its audit trail."""
    from .jobs import jobs_of
    from .tables import print_job

    found = jobs_of(loaded(config)).shown(job_id)
    print_found(found, as_json, print_job)


@jobs.command()
def retry(job_ids: list[str], config: ConfigFile = None) -> None:
    """Retry failed jobs, with all their attempts; their uploaded bytes must still be kept."""
    from .jobs import jobs_of

    known = jobs_of(loaded(config))

    def retried(job_id: str) -> str:
        known.retry(job_id)
        return known.retried

    act_on_each(job_ids, retried)


@permissions.command()
def drop(
    org: Annotated[str, typer.Argument(metavar="ORG", help="The user's organisation: org_id of the tokens.")],
    user: Annotated[str, typer.Argument(metavar="USER", help="The user: sub of the tokens.")],
    config: ConfigFile = None,
) -> None:
    """Drop the running service's cached permissions of a user."""
    from .service_client import running, segment

    if not org or not user:
        stop("ORG and USER must not be empty", WRONG)
    settings = loaded(config)
    service = running(settings)
    if service is None:
        stop(f"no service runs on the data folder {settings.data}, and without one nothing is cached", FAILED)
    answer = service.call("DELETE", f"/api/v1/operator/permissions/{segment(org)}/{segment(user)}")
    typer.echo(f"{answer['dropped']} cached decisions dropped")
