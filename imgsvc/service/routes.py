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
from ..http.dashboard import care_lists, care_page, job_page, jobs_page, sign_on
from ..http.dashboard import images as pictures
from ..http.dashboard import page as dashboard
from ..http.openapi import document, page
from ..http.openapi.operations import by_method
from ..http.operator import image_tasks, maintenance, permissions, sessions, users, webhooks
from ..http.operator import images as operator_images
from ..http.operator import jobs as operator_jobs
from ..http.operator import keys as operator_keys
from ..http.operator.metrics import exposition
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
    Route("/api/v1/health/auth", permissions.health),
    Route("/api/v1/operator/login", sessions.login, methods=["POST"]),
    Route("/api/v1/operator/logout", sessions.logout, methods=["POST"]),
    Route("/api/v1/operator/sessions", sessions.every_session, methods=["GET", "DELETE"]),
    Route("/api/v1/operator/token", sessions.upload_token, methods=["POST"]),
    Route("/api/v1/operator/images", operator_images.list_images),
    Literal("/api/v1/operator/images/delete", operator_images.delete_many, methods=["POST"]),
    Literal("/api/v1/operator/images/render", image_tasks.render, methods=["POST"]),
    Literal("/api/v1/operator/images/task", image_tasks.task, methods=["GET", "DELETE"]),
    Literal("/api/v1/operator/images/drop-sources", image_tasks.drop_sources, methods=["POST"]),
    Route("/api/v1/operator/images/{image_id}", operator_images.image, methods=["GET", "PATCH", "DELETE"]),
    Route("/api/v1/operator/keys", operator_keys.keys, methods=["GET", "POST"]),
    Route("/api/v1/operator/keys/{key_id}", operator_keys.revoke, methods=["DELETE"]),
    Route("/api/v1/operator/errors", operator_jobs.errors),
    Route("/api/v1/operator/jobs", operator_jobs.jobs),
    Route("/api/v1/operator/jobs/{job_id}", operator_jobs.job),
    Route("/api/v1/operator/jobs/{job_id}/retry", operator_jobs.retry, methods=["POST"]),
    Encoded("/api/v1/operator/permissions/{org}/{user}", permissions.drop, methods=["DELETE"]),
    Encoded("/api/v1/operator/users/{org}/{user}", users.erase, methods=["DELETE"]),
    Route("/api/v1/operator/erasures", users.list_erasures),
    Route("/api/v1/operator/erasures/{erasure_id}", users.report),
    Route("/api/v1/operator/storage/verify", maintenance.verify, methods=["POST"]),
    Route("/api/v1/operator/storage/gc", maintenance.gc, methods=["POST"]),
    Route("/api/v1/operator/storage/migrate", maintenance.migrate, methods=["POST"]),
    Route("/api/v1/operator/storage/backup", maintenance.backup, methods=["POST"]),
    Route("/api/v1/operator/storage/task", maintenance.current, methods=["GET", "DELETE"]),
    Route("/api/v1/operator/webhooks", webhooks.webhooks),
    Route("/api/v1/operator/webhooks/{webhook}/attempts", webhooks.attempts),
    Route("/api/v1/operator/webhooks/{webhook}/replay", webhooks.replay, methods=["POST"]),
    Route("/api/v1/operator/webhooks/{webhook}/enable", webhooks.enable, methods=["POST"]),
    Route("/api/v1/operator/webhooks/{webhook}/test", webhooks.test, methods=["POST"]),
    Route("/dashboard", dashboard.page),
    Route("/dashboard/", dashboard.page),
    Route("/dashboard/data", dashboard.data),
    Route("/dashboard/images", pictures.images),
    Route("/dashboard/care", care_page.storage_page),
    Route("/dashboard/care/webhooks", care_lists.webhooks_page),
    Route("/dashboard/care/keys", care_lists.keys_page),
    Route("/dashboard/care/users", care_lists.users_page),
    Route("/dashboard/jobs", jobs_page.jobs_page),
    Route("/dashboard/jobs/{job_id}", job_page.job_page),
    Route("/dashboard/login", dashboard.login_page),
    Route("/dashboard/oidc/start", sign_on.start),
    Route("/dashboard/oidc/callback", sign_on.callback),
    Route("/dashboard/static/{name}", dashboard.static),
    Route("/metrics", exposition),
    Route("/storage/{path:path}", variants.stored),
]


def routes(settings: Settings) -> list[Route]:
    """The routes of a service with these settings."""
    if settings.workers.engine != "dask":
        return ROUTES
    from .cluster_routes import RENDER_ROUTES  # with all of a cluster, only where there is one

    return [*ROUTES, *RENDER_ROUTES]
