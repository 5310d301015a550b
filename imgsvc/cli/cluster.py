"""The commands of a cluster that renders: its workers and its scheduler."""

import ssl
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError

from ..settings import Settings, SettingsError, all_settings
from ..settings.loading import first_problem
from ..settings.workers import Workers
from ..telemetry.logs import configure
from .options import FAILED, WRONG, stop

MISSING = "this needs Dask: install imgsvc[dask], or use ./run {command} or the container's tag dask"


def work(settings: Settings, given: dict[str, Any]) -> int:
    """Run a worker until a signal stops it; returns the exit status. `given` are options, by the settings' names."""
    _need_dask("worker")
    workers = _changed(settings, given)
    if not workers.scheduler:
        stop("--scheduler ([workers] scheduler) is needed: tls://HOST:PORT", WRONG)
    configure(settings.log)
    from ..jobs.cluster import worker

    try:
        return worker.run(workers)
    except (OSError, ssl.SSLError) as error:
        stop(_words(error), FAILED)
    except worker.TooLittleMemory as error:
        stop(str(error), WRONG)


def schedule(settings: Settings, host: str, port: int, http_port: int) -> int:
    """Run a scheduler until a signal stops it; returns the exit status."""
    _need_dask("scheduler")
    workers = settings.workers
    if not workers.insecure and not (workers.ca_file and workers.certfile and workers.keyfile):
        stop(
            "[workers] ca_file, certfile and keyfile are needed. Without certificates only with insecure "
            "(IMGSVC_WORKERS_INSECURE) = true, which lets in anyone who can reach it",
            WRONG,
        )
    configure(settings.log)
    from ..jobs.cluster import scheduler

    try:
        return scheduler.run(workers, host, port, http_port)
    except (OSError, ssl.SSLError) as error:
        stop(_words(error), FAILED)


def _changed(settings: Settings, given: dict[str, Any]) -> Workers:
    """The section with the given options. An invalid one ends the command."""
    try:
        return Settings(workers={**settings.workers.model_dump(), **given}).workers  # type: ignore[arg-type]
    except ValidationError as error:
        stop(str(SettingsError(first_problem(error, all_settings()))), WRONG)


def _need_dask(command: str) -> None:
    if find_spec("distributed") is None:
        stop(MISSING.format(command=command), WRONG)


def _words(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)
