"""The operator's page, its files, and the data that it shows."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from ..parts import parts_of
from . import gate
from .answers import answer
from .dashboard_data import DashboardData, Operator
from .problems import Problem

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
TYPES = {
    ".html": "text/html",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    media_type: str

    @property
    def is_page(self) -> bool:
        return self.media_type == TYPES[".html"]

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


def _read() -> dict[str, File]:
    found = {}
    for file in files(__package__).joinpath("static").iterdir():
        kind = TYPES.get(file.name[file.name.rfind(".") :])
        if kind:
            found[file.name] = File(file.read_bytes(), kind)
    return found


FILES = _read()  # at the import, before there is a loop that would have to wait


async def page(request: Request) -> Response:
    """The dashboard, or to a person who is not signed in the page to do so (401)."""
    try:
        gate.reader(request)
    except Problem as refusal:
        if not gate.wants_page(request):
            raise
        return _page(request, "login.html", refusal.status, refusal.headers)
    return _page(request, "dashboard.html")


async def login_page(request: Request) -> Response:
    return _page(request, "login.html")


async def static(request: Request) -> Response:
    """Scripts and styles: nothing secret, and checked anew each time, so that an upgrade shows at once."""
    file = FILES.get(str(request.path_params["name"]))
    if file is None or file.is_page:
        raise Problem(404, "not_found", "There is no such file.")
    headers = {"Cache-Control": "no-cache", "ETag": file.etag}
    if request.headers.get("If-None-Match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)


async def data(request: Request) -> Response:
    """What the page shows, for programs too."""
    way = gate.reader(request)
    parts = parts_of(request)
    shown = await parts.dashboard.data(parts)
    operator = Operator(
        signed_in=way != "public",
        may_act=way != "public",
        can_make_tokens=True,
        refused_attempts_last_hour=parts.attempts.last_hour(),
    )
    return answer(DashboardData(operator=operator, **dict(shown)))


def _page(request: Request, name: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Addresses in the page are relative to `{root}`, so that it works behind any path prefix."""
    path = str(request.scope["path"])
    root = ".." if path.count("/") > 1 else "."
    content = FILES[name].content.replace(b"{root}", root.encode())
    security = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    return Response(content, status, {**security, **(headers or {})}, media_type="text/html")
