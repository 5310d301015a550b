"""The dashboard's page, its static files, and its data."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from ..look.frame import page as framed
from ..look.frame import root_of
from ..openapi.operations import ASSET_ANSWERS, operation
from ..operator import auth
from ..operator.jobs import ErrorGroup, error_groups
from ..state import state_of
from ..wire.cached_response import CachedBody
from ..wire.json_response import json_response
from ..wire.problems import Problem
from ..wire.urls import Urls
from .guard import PAGES, SHOWN
from .models import DashboardData, Operator, Snapshot
from .overview import RANGES, level_of, overview
from .sign_in import sign_in_page
from .snapshot import SnapshotCache

SIGNS = {"good": "✓", "warn": "!", "bad": "✕"}
TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def _read() -> dict[str, CachedBody]:
    """The files of all pages, and those of the dashboard."""
    folders = ("imgsvc.http.look", "imgsvc.http.dashboard")
    found = [file for folder in folders for file in files(folder).joinpath("static").iterdir()]
    return {file.name: CachedBody(file.read_bytes(), TYPES[file.name.rpartition(".")[2]]) for file in found}


FILES = _read()  # read once, when the first request imports this


@operation("dashboard_page", "operator", "The dashboard", access="operator", answers=PAGES)
async def page(request: Request) -> Response:
    """How the service is, and what it did in the last hour, day or week (`?range=`).

    Without a session the answer is the sign-in page, with status 401.
    """
    try:
        way = await auth.require_reader(request)
    except Problem as refusal:
        if not auth.wants_page(request):
            raise
        return await sign_in_page(request, refusal.status, refusal.headers)
    shown = await _shown_to(request, way)
    groups = await error_groups(state_of(request))
    if way == "public":
        groups = [one.model_copy(update={"names": []}) for one in groups]
    return await overview_page(request, shown, groups)


async def overview_page(request: Request, shown: DashboardData, groups: list[ErrorGroup]) -> Response:
    """The overview of this data."""
    wanted = request.query_params.get("range", "")
    range_ = wanted if wanted in RANGES else "hour"
    address = request.app.state.public_url or str(request.base_url).rstrip("/")
    level = level_of(shown)
    return await framed(
        request,
        f"{SIGNS[level]} Overview",
        overview(shown, groups, root_of(request), address, range_),
        here="overview",
        signed_in=shown.operator.signed_in,
        scripts=("overview.js",),
        styles=("overview.css",),
        body_class=level,
    )


@operation("dashboard_login_page", "operator", "The sign-in page", answers={200: SHOWN})
async def login_page(request: Request) -> Response:
    return await sign_in_page(request)


@operation(
    "dashboard_static",
    "operator",
    "A part of the dashboard",
    answers=ASSET_ANSWERS,
    errors=("not_found",),
)
async def static(request: Request) -> Response:
    """Revalidated each time, so that an upgrade shows at once."""
    name = str(request.path_params["name"])
    if name not in FILES:
        raise Problem(404, "not_found", "There is no such file.")
    return FILES[name].answer(request)


@operation(
    "dashboard_data",
    "operator",
    "The dashboard's data",
    access="operator",
    answers={200: DashboardData},
    errors=("overloaded",),
)
async def data(request: Request) -> Response:
    """Refreshed at most once a second; the cost does not depend on the number of jobs."""
    way = await auth.require_reader(request)
    return json_response(await _shown_to(request, way))


def _snapshots(request: Request) -> SnapshotCache:
    """Those of this application, which has none before the first request."""
    state = request.app.state
    state.snapshot = state.snapshot or SnapshotCache()
    cache: SnapshotCache = state.snapshot
    return cache


async def _shown_to(request: Request, way: auth.AuthMethod) -> DashboardData:
    """What this reader may see of the last snapshot."""
    state = state_of(request)
    shown = await _snapshots(request).data(state)
    if way != "public" or state.stores.urls.signatures is None:
        shown = _pictured(shown, state.stores.urls)
    if way == "public":
        shown = _without_names(shown)
    operator = Operator(
        signed_in=way != "public",
        may_act=way != "public",
        can_make_tokens=state.access.tokens.ours,
        refused_attempts_last_hour=state.access.throttle.last_hour(),
    )
    return DashboardData(operator=operator, **dict(shown))


def _without_names(shown: Snapshot) -> Snapshot:
    """Without the names of the files, which are their users' own words."""
    nameless = {"original_filename": None}
    jobs = [job.model_copy(update=nameless) for job in shown.processing.recent_jobs]
    failed, retrying = (
        [one.model_copy(update=nameless) for one in found]
        for found in (shown.errors.recent_failures, shown.errors.retrying)
    )
    processing = shown.processing.model_copy(update={"recent_jobs": jobs})
    errors = shown.errors.model_copy(update={"recent_failures": failed, "retrying": retrying})
    return shown.model_copy(update={"processing": processing, "errors": errors})


def _pictured(shown: Snapshot, urls: Urls) -> Snapshot:
    """Add the addresses of the recent jobs' pictures. The largest ready variant is the first in `ready`."""
    jobs = [
        job.model_copy(
            update={
                "thumbnail_url": urls.of_page(job.image_id, job.ready[-1]),
                "picture_url": urls.of_page(job.image_id, job.ready[0]),
            }
            if job.ready
            else {}
        )
        for job in shown.processing.recent_jobs
    ]
    return shown.model_copy(update={"processing": shown.processing.model_copy(update={"recent_jobs": jobs})})
