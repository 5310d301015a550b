"""`imgsvc upload`: many files at once, with progress, going on where an earlier call was cut short."""

from pathlib import Path
from typing import Annotated

import typer

from .options import FAILED, WRONG, stop


def upload(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, and with --recursive folders.")],
    bucket: Annotated[str, typer.Option(help="The bucket of the images.")] = "photos",
    server: Annotated[str, typer.Option(help="Address of the service.")] = "http://127.0.0.1:8000",
    token: Annotated[
        str | None, typer.Option(envvar="IMGSVC_TOKEN", help="A user's token.", show_default=False)
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Take the files below folders too.")] = False,
    parallel: Annotated[int, typer.Option(min=1, max=32, help="Uploads at the same time.")] = 4,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each file, and no progress.")
    ] = False,
) -> None:
    """Upload photos, and print the address of each. What an earlier call has uploaded is not sent again.

    Which files those are is known by their digest. Waits and tries again after 429 and 503.
    """
    from .upload import NoFiles, files_of, run

    if not token:
        stop("pass a token with --token or in IMGSVC_TOKEN", WRONG)
    try:
        files = files_of(paths, recursive=recursive)
    except NoFiles as error:
        stop(str(error), WRONG)
    failed = run(files, server=server, token=token, bucket=bucket, parallel=parallel, as_json=as_json)
    raise typer.Exit(FAILED if failed else 0)
