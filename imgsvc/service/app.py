"""The ASGI application: routes, middleware, and a lifespan that runs everything behind them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan

from ..http.openapi import document as openapi
from ..http.openapi import page as docs
from ..http.state import AppState
from ..http.wire.answer_memory import AnswerMemory
from ..http.wire.cross_origin import CrossOrigin
from ..http.wire.one_pass import Concerns, OnePass
from ..http.wire.proxy_headers import AllowedHosts, ForwardedHeaders
from ..http.wire.request_lines import RequestLines
from ..http.wire.request_metrics import RequestMetrics
from ..http.wire.routing import IndexedRouter
from ..settings import Settings
from ..settings.fields import MEGABYTE
from ..settings.hosts import allowed_hosts
from ..telemetry.metrics import Metrics
from .assembly import Doubles, assembled
from .routes import routes


class Application(Starlette):
    """Starlette's, with one pass over each request in the place of a stack of middleware."""

    def __init__(self, served: list[Route], concerns: Concerns, lifespan: Lifespan[Starlette]) -> None:
        super().__init__(routes=served, lifespan=lifespan)
        self._served = served
        self.router.redirect_slashes = False  # a redirect would give every path a second address
        self._concerns = concerns
        self.service: AppState | None = None  # as in `state`, for handlers: an attribute is found at once

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = OnePass(IndexedRouter(self._served, self.router), self._concerns)
        for middleware in reversed(self.user_middleware):  # of an application that embeds the service
            app = middleware.cls(app, *middleware.args, **middleware.kwargs)
        return app


def create_app(settings: Settings | None = None, doubles: Doubles | None = None) -> Starlette:
    """The whole service as an ASGI application; its lifespan opens and closes everything."""
    settings = settings or Settings.load()
    metrics, memory = Metrics(settings), AnswerMemory(int(settings.server.answers_mb * MEGABYTE))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with assembled(settings, doubles or Doubles(), metrics) as state:
            opened.service = app.state.service = state
            app.state.snapshot = None
            yield

    served = routes(settings)
    app = opened = Application(served, _concerns(settings, metrics, memory, served), lifespan)
    app.state.public_url = settings.service.public_url
    app.state.metrics = metrics
    app.state.answer_memory = memory
    app.state.document = openapi.Document(settings, served)
    app.state.assets = docs.Assets(settings.service.name)
    return app


def _concerns(settings: Settings, metrics: Metrics, memory: AnswerMemory, served: list[Route]) -> Concerns:
    server = settings.server
    return Concerns(
        forwarded=ForwardedHeaders(server.trusted_proxies, unix_socket=bool(server.unix_path)),
        hosts=AllowedHosts(allowed_hosts(settings)),
        memory=memory,
        metrics=RequestMetrics(metrics.http, served),
        lines=RequestLines(settings.log.level),
        cross_origin=CrossOrigin(server.cors_origins) if server.cors_origins else None,
    )
