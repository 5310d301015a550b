"""The routes: every path of the service with its handler."""

from starlette.routing import Route

from ..http.api import (
    browser_module,
    changes,
    deletions,
    error_pages,
    events,
    fetch,
    health,
    images,
    info,
    jobs,
    lists,
    sources,
    tickets,
    uploads,
    usage,
    variants,
)
from ..http.openapi import document, page
from ..http.openapi.operations import by_method
from ..http.wire.later import later
from ..http.wire.routing import Encoded, Literal
from ..settings import Settings

image = by_method(GET=images.info, PATCH=changes.update, DELETE=deletions.delete)

ROUTES = [
    Route("/", info.root),
    Route("/info", info.info),
    Route("/errors", error_pages.error_list),
    Route("/errors/{code}", error_pages.error_page),
    Route("/openapi.json", document.document),
    Route("/docs", page.docs),
    Route("/docs/", page.docs),
    Route("/docs/{asset}", page.asset),
    Route("/static/imgsvc.js", browser_module.module),
    Route("/api/v1/images", lists.list_images),
    Literal("/api/v1/images/upload", uploads.upload, methods=["POST"]),
    Literal("/api/v1/images/fetch", fetch.fetch, methods=["POST"]),
    Literal("/api/v1/images/events", events.of_many),
    Route("/api/v1/images/jobs/{job_id}/events", events.of_job),
    Route("/api/v1/images/jobs/{job_id}", jobs.status),
    Route("/api/v1/images/jobs/{job_id}/result", jobs.result),
    Literal("/api/v1/images/batch", images.batch),
    Literal("/api/v1/images/tickets", tickets.issue, methods=["POST"]),
    Route("/api/v1/images/tickets/{ticket}", tickets.upload, methods=["POST"]),
    Literal("/api/v1/images/delete", deletions.delete_many, methods=["POST"]),
    Route("/api/v1/images/{image_id}", image, methods=["GET", "PATCH", "DELETE"]),
    Route("/api/v1/images/{image_id}/all", images.every_size),
    Route("/api/v1/images/{image_id}/direct", variants.direct),
    Route("/api/v1/images/{image_id}/source", sources.source),
    Route("/api/v1/usage", usage.usage),
    Route("/api/v1/health", health.health),
    Route("/api/v1/health/", health.health),
    Route("/api/v1/health/live", health.live),
    Route("/api/v1/health/stats", health.stats),
    Route("/api/v1/health/failed", health.failed),
    Route("/api/v1/health/auth", later("operator.permissions.health")),
    Route("/api/v1/operator/login", later("operator.sessions.login"), methods=["POST"]),
    Route("/api/v1/operator/logout", later("operator.sessions.logout"), methods=["POST"]),
    Route("/api/v1/operator/sessions", later("operator.sessions.every_session"), methods=["GET", "DELETE"]),
    Route("/api/v1/operator/token", later("operator.sessions.upload_token"), methods=["POST"]),
    Route("/api/v1/operator/images", later("operator.images.list_images")),
    Literal("/api/v1/operator/images/delete", later("operator.images.delete_many"), methods=["POST"]),
    Literal("/api/v1/operator/images/render", later("operator.image_tasks.render"), methods=["POST"]),
    Literal("/api/v1/operator/images/task", later("operator.image_tasks.task"), methods=["GET", "DELETE"]),
    Literal("/api/v1/operator/images/drop-sources", later("operator.image_tasks.drop_sources"), methods=["POST"]),
    Route("/api/v1/operator/images/{image_id}", later("operator.images.image"), methods=["GET", "PATCH", "DELETE"]),
    Route("/api/v1/operator/keys", later("operator.keys.keys"), methods=["GET", "POST"]),
    Route("/api/v1/operator/keys/{key_id}", later("operator.keys.revoke"), methods=["DELETE"]),
    Route("/api/v1/operator/errors", later("operator.jobs.errors")),
    Route("/api/v1/operator/jobs", later("operator.jobs.jobs")),
    Route("/api/v1/operator/jobs/{job_id}", later("operator.jobs.job")),
    Route("/api/v1/operator/jobs/{job_id}/retry", later("operator.jobs.retry"), methods=["POST"]),
    Encoded("/api/v1/operator/permissions/{org}/{user}", later("operator.permissions.drop"), methods=["DELETE"]),
    Encoded("/api/v1/operator/users/{org}/{user}", later("operator.users.erase"), methods=["DELETE"]),
    Route("/api/v1/operator/erasures", later("operator.users.list_erasures")),
    Route("/api/v1/operator/erasures/{erasure_id}", later("operator.users.report")),
    Route("/api/v1/operator/storage/verify", later("operator.maintenance.verify"), methods=["POST"]),
    Route("/api/v1/operator/storage/gc", later("operator.maintenance.gc"), methods=["POST"]),
    Route("/api/v1/operator/storage/migrate", later("operator.maintenance.migrate"), methods=["POST"]),
    Route("/api/v1/operator/storage/backup", later("operator.maintenance.backup"), methods=["POST"]),
    Route("/api/v1/operator/storage/task", later("operator.maintenance.current"), methods=["GET", "DELETE"]),
    Route("/api/v1/operator/webhooks", later("operator.webhooks.webhooks")),
    Route("/api/v1/operator/webhooks/{webhook}/attempts", later("operator.webhooks.attempts")),
    Route("/api/v1/operator/webhooks/{webhook}/replay", later("operator.webhooks.replay"), methods=["POST"]),
    Route("/api/v1/operator/webhooks/{webhook}/enable", later("operator.webhooks.enable"), methods=["POST"]),
    Route("/api/v1/operator/webhooks/{webhook}/test", later("operator.webhooks.test"), methods=["POST"]),
    Route("/dashboard", later("dashboard.page.page")),
    Route("/dashboard/", later("dashboard.page.page")),
    Route("/dashboard/data", later("dashboard.page.data")),
    Route("/dashboard/images", later("dashboard.images.images")),
    Route("/dashboard/care", later("dashboard.care_page.storage_page")),
    Route("/dashboard/care/webhooks", later("dashboard.care_lists.webhooks_page")),
    Route("/dashboard/care/keys", later("dashboard.care_lists.keys_page")),
    Route("/dashboard/care/users", later("dashboard.care_lists.users_page")),
    Route("/dashboard/jobs", later("dashboard.jobs_page.jobs_page")),
    Route("/dashboard/jobs/{job_id}", later("dashboard.job_page.job_page")),
    Route("/dashboard/login", later("dashboard.page.login_page")),
    Route("/dashboard/oidc/start", later("dashboard.sign_on.start")),
    Route("/dashboard/oidc/callback", later("dashboard.sign_on.callback")),
    Route("/dashboard/static/{name}", later("dashboard.page.static")),
    Route("/metrics", later("operator.metrics.exposition")),
    Route("/storage/{path:path}", variants.stored),
]


def routes(settings: Settings) -> list[Route]:
    """The routes of a service with these settings."""
    if settings.workers.engine != "dask":
        return ROUTES
    from .cluster_routes import RENDER_ROUTES  # with all of a cluster, only where there is one

    return [*ROUTES, *RENDER_ROUTES]
