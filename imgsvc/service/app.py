"""The ASGI application: routes, middleware, and a lifespan that runs everything behind them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from ..http.dashboard.snapshot import SnapshotCache
from ..http.openapi import document as openapi
from ..http.openapi import page as docs
from ..http.wire.answer_memory import AnswerMemory, BoundedAnswers
from ..http.wire.drain import DrainUnreadBody
from ..http.wire.error_mapping import as_problem
from ..http.wire.metrics_middleware import RequestMetrics
from ..http.wire.middleware import CaughtErrors, CrossOrigin, Tracing
from ..http.wire.problems import Problem
from ..http.wire.proxy_headers import AbsoluteTargets, AllowedHosts, ForwardedHeaders
from ..settings import Settings
from ..settings.fields import MEGABYTE
from ..settings.hosts import allowed_hosts
from ..telemetry.metrics import Metrics
from .assembly import Doubles, assembled
from .routes import ROUTES

TRACE_HEADERS = ("X-Trace-ID", "X-Correlation-ID")
EXPOSED = ("Content-Range", "ETag", "Idempotency-Replayed", "Location", "Preference-Applied", "Retry-After")
RATE_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


def create_app(settings: Settings | None = None, doubles: Doubles | None = None) -> Starlette:
    """The whole service as an ASGI application; its lifespan opens and closes everything."""
    settings = settings or Settings.load()
    metrics, memory = Metrics(settings), AnswerMemory(int(settings.server.answers_mb * MEGABYTE))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with assembled(settings, doubles or Doubles(), metrics) as state:
            app.state.service, app.state.snapshot = state, SnapshotCache()
            yield

    app = Starlette(
        routes=ROUTES,
        lifespan=lifespan,
        middleware=_middleware(settings, metrics, memory),
        exception_handlers={Problem: as_problem, HTTPException: as_problem},
    )
    app.router.redirect_slashes = False  # a redirect would give every path a second address
    app.state.public_url = settings.service.public_url
    app.state.metrics = metrics
    app.state.answer_memory = memory
    app.state.document = openapi.Document(settings, ROUTES)
    app.state.assets = docs.Assets(settings.service.name)
    return app


def _middleware(settings: Settings, metrics: Metrics, memory: AnswerMemory) -> list[Middleware]:
    """The middleware, outermost first. CORS wraps the hosts check and the errors, so that browsers can read those."""
    server = settings.server
    cross_origin = Middleware(
        CrossOrigin,
        allow_origins=server.cors_origins,
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Prefer", "X-Metadata", *TRACE_HEADERS],
        expose_headers=[*EXPOSED, *TRACE_HEADERS, *RATE_HEADERS],
    )
    return [
        Middleware(AbsoluteTargets),
        Middleware(ForwardedHeaders, networks=server.trusted_proxies, unix_socket=bool(server.unix_path)),
        Middleware(DrainUnreadBody),
        Middleware(Tracing),
        Middleware(RequestMetrics, metrics=metrics.http, routes=ROUTES),
        *([cross_origin] if server.cors_origins else []),
        Middleware(CaughtErrors),
        Middleware(AllowedHosts, names=allowed_hosts(settings)),
        Middleware(BoundedAnswers, memory=memory),
    ]
