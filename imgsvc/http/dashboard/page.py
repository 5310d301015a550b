"""The dashboard's page, its static files, and its data."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from ..look.frame import POLICY, root_of
from ..openapi.operations import ASSET, Answer, operation
from ..operator import auth
from ..state import state_of
from ..wire.cached_response import CachedBody
from ..wire.json_response import json_response
from ..wire.problems import Problem
from ..wire.urls import Urls
from .guard import PAGES, SHOWN
from .models import DashboardData, Operator, Snapshot
from .sign_in import sign_in_page

OWN_PAGES = ("dashboard.html",)
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def _read() -> dict[str, CachedBody]:
    """The files of all pages, and those of the dashboard."""
    folders = ("imgsvc.http.look", "imgsvc.http.dashboard")
    found = [file for folder in folders for file in files(folder).joinpath("static").iterdir()]
    return {file.name: CachedBody(file.read_bytes(), TYPES[file.name.rpartition(".")[2]]) for file in found}


FILES = _read()  # read at import, before there is an event loop to block


@operation("dashboard_page", "operator", "The dashboard", access="operator", answers=PAGES)
async def page(request: Request) -> Response:
    """Without a session the answer is the sign-in page, with status 401."""
    try:
        await auth.require_reader(request)
    except Problem as refusal:
        if not auth.wants_page(request):
            raise
        return await sign_in_page(request, refusal.status, refusal.headers)
    return _page(request, "dashboard.html", images_from=await state_of(request).stores.urls.foreign_origin())


@operation("dashboard_login_page", "operator", "The sign-in page", answers={200: SHOWN})
async def login_page(request: Request) -> Response:
    return await sign_in_page(request)


@operation(
    "dashboard_static",
    "operator",
    "A part of the dashboard",
    answers={
        200: Answer("A script, style or icon.", ASSET, ("ETag", "Cache-Control")),
        304: Answer("Not modified.", headers=("ETag", "Cache-Control")),
    },
    errors=("not_found",),
)
async def static(request: Request) -> Response:
    """Revalidated each time, so that an upgrade shows at once."""
    name = str(request.path_params["name"])
    if name in OWN_PAGES or name not in FILES:
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
    state = state_of(request)
    shown = await request.app.state.snapshot.data(state)
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
    return json_response(DashboardData(operator=operator, **dict(shown)))


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


def _page(request: Request, name: str, images_from: str = "") -> Response:
    """Addresses in the page are relative to `{root}`, so that it works behind any path prefix."""
    content = FILES[name].body.replace(b"{root}", root_of(request).encode())
    policy = POLICY.format(pictures=f" {images_from}" if images_from else "")
    return Response(
        content, headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"}, media_type="text/html"
    )
