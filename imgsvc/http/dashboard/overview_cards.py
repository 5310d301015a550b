"""The cards of the overview: a card is there only if it says something."""

from datetime import datetime
from urllib.parse import quote

from ..look.components import (
    NONE,
    ago,
    card,
    copyable,
    counted,
    duration,
    empty,
    facts,
    meter,
    name_or_id,
    number,
    percent,
    picture,
    size,
    state,
    table,
)
from ..look.html import Child, Html, el, foreign
from .models import DashboardData, Failure, NearLimit, RecentJob
from .snapshot import MOST_TICKETS
from .state_words import STATE_WORDS
from .verdict import is_empty

DEFAULT_ORG = "default-org"
GIGABYTE, MEGABYTE = 1024**3, 1024**2
FULL, NEVER_HIGH = 100, 1000  # renders are meant to use the whole processor


def recent(data: DashboardData, root: str, address: str, moment: datetime) -> Html:
    jobs = data.processing.recent_jobs
    if not jobs:
        return card("recent", "Recent jobs", _first_upload(data, address))
    headings = ("File", "State", "Bucket", "User", "Size", "Accepted", "Took")
    rows = [(job.job_id, _job(job, root, moment)) for job in jobs]
    every = el("a", "All jobs", href=f"{root}/dashboard/jobs")
    return card("recent", "Recent jobs", table("Recent jobs", headings, rows, "jobs"), head=every)


def _job(job: RecentJob, root: str, moment: datetime) -> tuple[Child, ...]:
    took = None
    if job.completed_at:
        took = (datetime.fromisoformat(job.completed_at) - datetime.fromisoformat(job.began_at)).total_seconds()
    small, large = (f"{root}{one}" if one else None for one in (job.thumbnail_url, job.picture_url))
    shown = picture(small, large, f"Thumbnail of {job.original_filename or job.image_id}")
    link = name_or_id(job.original_filename, job.job_id, f"{root}/dashboard/jobs/{quote(job.job_id)}")
    return (
        el("div", shown, link, class_="with-picture"),
        state(job.status, STATE_WORDS[job.status]),
        foreign(job.bucket),
        NONE if job.user_id is None else foreign(job.user_id),
        size(job.content_length),
        ago(job.created_at, moment),
        duration(took),
    )


def _first_upload(data: DashboardData, address: str) -> Html:
    ours = data.operator.can_make_tokens or not data.operator.signed_in
    token = "$(./run token --sub me)" if ours else "$TOKEN"
    line = f'curl -H "Authorization: Bearer {token}" -F bucket=photos -F file=@photo.jpg {address}/api/v1/images/upload'
    hint = (
        "Run this in the folder of imgsvc. Where it is installed, or in its container, use imgsvc token instead of "
        "./run token."
        if ours
        else "TOKEN is a token from your identity provider."
    )
    first = "No photo yet. Send the first one:" if is_empty(data) else "The list is empty. Send another photo:"
    return el(
        "div", el("p", first), copyable(line, "the upload command"), el("p", hint, class_="muted"), class_="first"
    )


def retrying(data: DashboardData, root: str, moment: datetime) -> Html | None:
    jobs = data.errors.retrying
    if not jobs:
        return None
    rows = [(one.job_id, _retry(one, root, moment)) for one in jobs]
    headings = ("File", "Why the attempt failed", "Attempts", "Next attempt")
    return card("retrying", "To be retried", table("Jobs that will be retried", headings, rows))


def _retry(one: Failure, root: str, moment: datetime) -> tuple[Child, ...]:
    link = name_or_id(one.original_filename, one.job_id, f"{root}/dashboard/jobs/{quote(one.job_id)}")
    return link, foreign(one.why), number(one.attempts), ago(one.next_attempt_at, moment)


def workers(data: DashboardData, root: str) -> Html:
    queue = data.queue
    rows = [
        (
            one.name,
            (
                foreign(one.name),
                state(one.state),
                el("a", one.job_id, href=f"{root}/dashboard/jobs/{quote(one.job_id)}", title=one.job_id, class_="id")
                if one.job_id
                else NONE,
                duration(one.busy_seconds),
                NONE if one.rss_mb is None else size(one.rss_mb * MEGABYTE),
                number(one.jobs_done),
                number(one.restarts),
            ),
        )
        for one in data.workers.processes
    ]
    oldest = "nothing waits" if queue.oldest_waiting_seconds is None else duration(queue.oldest_waiting_seconds)
    return card(
        "workers",
        "Queue and workers",
        facts(
            ("Jobs that wait for a worker", _waiting(data)),
            ("Longest wait", oldest),
            ("Busy workers", f"{number(data.workers.tasks.active)} of {number(len(data.workers.processes))}"),
        ),
        table("Workers", ("Worker", "State", "Job", "For", "Memory", "Done", "Restarts"), rows)
        if rows
        else empty("There is no worker. Check [workers] count and the log."),
        span=8,
    )


def _waiting(data: DashboardData) -> str:
    queue = data.queue
    if not queue.waiting:
        return "none"
    return (
        f"{number(queue.waiting)}: {number(queue.previews)} for the preview, {number(queue.renders)} for all variants"
    )


def machine(data: DashboardData) -> Html:
    resources, refused = data.system.resources, data.operator.refused_attempts_last_hour
    streams, fetches = data.event_streams, data.fetches
    cpu, memory, disk = resources.cpu, resources.memory, resources.disk_root
    return card(
        "machine",
        "Machine",
        meter("Processor", cpu.percent, f"{percent(cpu.percent)} of {counted(cpu.count, 'core')}", NEVER_HIGH),
        meter("Memory", memory.percent, _free(memory.percent, memory.available_gb, memory.total_gb)),
        meter("System disk", disk.percent, _free(disk.percent, disk.free_gb, disk.total_gb)),
        facts(
            ("Running for", data.system.uptime_human),
            ("Version", data.system.version),
            ("Memory of the service", size(resources.process.memory_rss_mb * MEGABYTE)),
            ("Open event streams", f"{number(streams.open)} of {number(streams.limit)}") if streams.open else None,
            ("Uploads by address on their way", f"{number(fetches.open)} of {number(fetches.limit)}")
            if fetches.open
            else None,
            ("Refused sign-ins, last hour", number(refused)) if refused else None,
        ),
        span=4,
    )


def _free(share: float, free_gb: float, total_gb: float) -> str:
    return f"{percent(share)}, {size(free_gb * GIGABYTE)} of {size(total_gb * GIGABYTE)} free"


def storage(data: DashboardData, root: str) -> Html:
    one, database = data.storage, data.database
    local, s3 = one.local, one.s3
    disk = local.disk if local else None
    images = el("a", number(one.total_images), href=f"{root}/dashboard/images")
    aside = one.set_aside
    return card(
        "storage",
        "Storage",
        meter("Disk of the pictures", disk.percent, _free(disk.percent, disk.free_gb, disk.total_gb)) if disk else None,
        facts(
            ("Pictures", images),
            ("Folder", foreign(local.path, class_="path")) if local else None,
            ("Uploads are refused below", f"{size(local.reserve_mb * MEGABYTE)} free") if local else None,
            ("Bucket", foreign(s3.bucket)) if s3 else None,
            ("Region", foreign(s3.region)) if s3 else None,
            ("At", foreign(s3.endpoint) if s3.endpoint else "AWS") if s3 else None,
            ("Backend", foreign(one.backend)) if not local and not s3 else None,
            ("Uploads set aside", f"{number(aside.files)}, {size(aside.bytes)}") if aside.files else None,
            ("Database", foreign(database.path, class_="path")),
            ("Size of the database", size(database.size_mb * MEGABYTE)),
        ),
        None if not local or disk else empty("The folder can't be read: check that it exists and is mounted."),
        span=6,
    )


def limits(data: DashboardData) -> Html | None:
    near = data.rate_limits.users_near_limit
    return card("limits", "Users near their limit", [_near(one) for one in near], span=6) if near else None


def _near(one: NearLimit) -> Html:
    who = one.user_id if one.org_id == DEFAULT_ORG else f"{one.user_id} ({one.org_id})"
    words = f"{number(one.count)} of {number(one.limit)} uploads"
    return meter(foreign(who), one.percent_used, words, FULL)


def redis(data: DashboardData) -> Html | None:
    one = data.redis
    if one.status == "disabled":
        return None
    known = [(name.replace("_", " "), foreign(value)) for name, value in one.info.items()]
    away = "Until Redis responds again, each instance counts its own uploads. Check REDIS_URL and the log of Redis."
    shown = state(one.status, one.status if one.connected else f"{one.status}, not connected")
    return card("redis", "Redis", facts(("State", shown), *known), None if one.connected else empty(away), span=6)


def webhooks(data: DashboardData, root: str) -> Html | None:
    if not data.webhooks:
        return None
    rows = [
        (
            one.name,
            (
                foreign(one.name),
                state("failed", "switched off: it answered 410")
                if one.switched_off
                else state("degraded", "too many waited")
                if one.overflowed
                else state("healthy", "on"),
                number(one.waiting),
                duration(one.oldest_waiting_seconds),
            ),
        )
        for one in data.webhooks
    ]
    headings = ("Name", "State", "Waiting", "Longest wait")
    care = el("a", "Test, send again, log", href=f"{root}/dashboard/care") if data.operator.may_act else None
    return card("webhooks", "Webhooks", table("Webhooks", headings, rows), span=6, head=care)


def credentials(data: DashboardData, root: str) -> Html | None:
    one = data.credentials
    if not one.keys and not one.open_tickets:
        return None
    many = one.open_tickets > MOST_TICKETS
    tickets = f"more than {MOST_TICKETS}" if many else number(one.open_tickets)
    keys = "API keys in use", number(one.keys)
    open_ = "Upload tickets that can be used", tickets
    care = f"{root}/dashboard/care/keys"
    pairs = [(label, el("a", words, href=care) if data.operator.may_act else words) for label, words in (keys, open_)]
    return card("credentials", "Keys and tickets", facts(*pairs), span=6)


def configuration(data: DashboardData) -> Html:
    sections = [
        el(
            "div",
            el("h3", foreign(name)),
            facts(*((key, foreign(value, class_="path") if value else "(empty)") for key, value in values.items())),
            class_="settings",
            data_key=name,
        )
        for name, values in data.configuration.items()
    ]
    summary = el("summary", "The settings of this service (without secrets)")
    return card(
        "configuration", "Settings", el("details", summary, el("div", sections, class_="columns"), data_key="all")
    )
