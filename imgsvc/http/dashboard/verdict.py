"""The state of the service in one sentence, and what to do about faults. The sentence holds no number that changes."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from ...lazy_dataclass import dataclass
from ..look.components import counted, number
from ..look.html import Child, Html, el
from .filters import minute_of
from .models import DashboardData
from .spans import DAY, HOUR, WEEK

MANY_REFUSED = 10  # sign-ins in an hour
MANY_FAILED = 5  # jobs of the last hour, and also
FAILED_SHARE = 0.2  # of those that ended in it: below this, single broken files are the likely reason
RETRYABLE_FOR = DAY
RETRYING_JOBS = "dashboard/jobs?status=retrying"

Level = Literal["good", "warn", "bad"]
Trouble = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`items` say what to do, and what else there is to know."""

    level: Level
    line: str
    items: list[Child]


def verdict_of(data: DashboardData, root: str) -> Verdict:
    faults, items = list[str](), list[Child]()
    failing = [(name, check) for name, check in data.health.checks.items() if check.status != "healthy"]
    for name, check in sorted(failing, key=lambda one: one[1].status != "unhealthy"):
        fault, advice = TROUBLES.get(name, _other)(data, name)
        faults.append(fault)
        items.append(f"{_sentence(f'{name}: {check.detail}')} {advice}")
    for trouble in (_failed_here, _many_fail, _queue_grows):
        found = trouble(data, root)
        if found:
            faults.append(found[0])
            items.append(found[1])
    level: Level = "bad" if data.health.status == "unhealthy" else "warn" if faults else "good"
    what = "; ".join(faults)
    lines = {
        "good": "All is well.",
        "warn": f"Degraded: {what}.",
        "bad": f"Unhealthy: {what}." if what else "Unhealthy.",
    }
    return Verdict(level, lines[level], [*items, *_notes(data, root)])


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def failed_jobs(data: DashboardData, back: timedelta) -> str:
    """The address of the failed jobs of so long a time until now, to the minute, as their figures are counted."""
    moment = datetime.fromisoformat(data.system.timestamp)
    begin = moment - back
    if back == WEEK:
        begin = begin.replace(minute=0)  # from the table of hours
    return f"dashboard/jobs?status=failed&from={minute_of(begin)}&until={minute_of(moment)}"


def _link(root: str, address: str, words: str) -> Html:
    return el("a", words, href=f"{root}/{address}")


def _other(_data: DashboardData, name: str) -> Trouble:
    return f"{name} is not healthy", "See the log."


def _database(data: DashboardData, _name: str) -> Trouble:
    return (
        "the database can't be written",
        f"Uploads are refused until it works. Check that {data.database.path} is on a disk with free space and belongs "
        "to the service's user; the log has the reason.",
    )


def _storage(data: DashboardData, _name: str) -> Trouble:
    if data.storage.local:
        what = f"Check that {data.storage.local.path} exists, is mounted, and is writable for the service's user."
    else:
        what = "Check that the object storage responds and that its keys are still valid."
    return "the storage does not work", f"Jobs wait and are retried. {what}"


def _staging(_data: DashboardData, _name: str) -> Trouble:
    return (
        "the folder for uploads was removed",
        "It is created again automatically, but jobs whose uploads were in it can't continue. Find out what removed "
        "it: it is the folder staging next to the database.",
    )


def _instance(_data: DashboardData, _name: str) -> Trouble:
    return (
        "the folders do not belong to this service",
        "Check DATABASE_PATH and STORAGE_PATH, and that their disks are mounted. For a new folder: imgsvc storage "
        "adopt, while the service is stopped.",
    )


def _workers(data: DashboardData, _name: str) -> Trouble:
    none = data.health.checks["workers"].status == "unhealthy"
    return (
        "no worker is alive" if none else "a worker is missing",
        "Uploads are accepted and kept. Workers are restarted automatically; if this continues, the log has the reason "
        "(often too little memory).",
    )


def _disk(_data: DashboardData, _name: str) -> Trouble:
    return (
        "the disk is full",
        "New uploads are refused; accepted ones are still processed. Make room, or lower [storage] reserve_mb.",
    )


def _queue(_data: DashboardData, _name: str) -> Trouble:
    return (
        "jobs wait for a long time",
        "More uploads arrive than can be processed. Nothing is lost; if this continues, raise [workers] count and "
        "memory_mb.",
    )


def _authorization(data: DashboardData, _name: str) -> Trouble:
    open_ = data.configuration.get("auth", {}).get("fail_open") == "true"
    what = (
        "Until it responds, any valid token may do everything: see AUTH_FAIL_OPEN."
        if open_
        else "Uploads and deletions get 503, except by users whose permissions are cached; images are served."
    )
    return "the authorization server does not respond", f"{what} Details are at /api/v1/health/auth."


def _cluster(data: DashboardData, _name: str) -> Trouble:
    one = data.cluster
    if one.status == "disconnected":
        return (
            "the scheduler of the machines that render can't be reached",
            "Nothing is lost: the service connects again automatically. Check that imgsvc scheduler runs.",
        )
    if any(not machine.used for machine in one.machines):
        return (
            "not all machines that render are used",
            "See Other machines. If this continues, install the service's version of imgsvc and its libraries there.",
        )
    if one.insecure:
        return (
            "the machines that render are not protected",
            "Anyone who can reach the scheduler can run code in every worker. Give each machine a certificate, use "
            "tls://, and remove [workers] insecure.",
        )
    return "the gateway to the machines that render is not fully caged", "See the log."


TROUBLES: dict[str, Callable[[DashboardData, str], Trouble]] = {
    "database": _database,
    "storage": _storage,
    "staging": _staging,
    "instance": _instance,
    "workers": _workers,
    "disk": _disk,
    "queue": _queue,
    "authorization": _authorization,
    "cluster": _cluster,
}


def _retryable(data: DashboardData) -> int:
    """Failures of the last day that are not caused by the file: their source is kept."""
    since = datetime.fromisoformat(data.system.timestamp) - RETRYABLE_FOR
    return sum(
        one.can_retry and one.failed_at is not None and datetime.fromisoformat(one.failed_at) > since
        for one in data.errors.recent_failures
    )


def _failed_here(data: DashboardData, root: str) -> tuple[str, Child] | None:
    failed, retrying = _retryable(data), len(data.errors.retrying)
    if failed:
        words = f"{counted(failed, 'job')} failed because of the service. See the "
        return "jobs failed that can be retried", [
            words,
            _link(root, failed_jobs(data, RETRYABLE_FOR), "failed jobs"),
            ": fix the cause, then retry.",
        ]
    if retrying:
        words = f"{counted(retrying, 'job')} will be retried automatically. For the cause see "
        return "jobs failed and will be retried", [words, _link(root, RETRYING_JOBS, "those jobs"), "."]
    return None


def many_fail(data: DashboardData) -> bool:
    hour = data.processing.performance.last_hour
    return hour.failed >= MANY_FAILED and hour.failed >= hour.total * FAILED_SHARE


def _many_fail(data: DashboardData, root: str) -> tuple[str, Child] | None:
    if not many_fail(data):
        return None
    hour = data.processing.performance.last_hour
    words = f"{number(hour.failed)} of the {counted(hour.total, 'job')} that ended in the last hour failed. See the "
    return "many jobs fail", [words, _link(root, failed_jobs(data, HOUR), "failed jobs"), "."]


def _queue_grows(data: DashboardData, root: str) -> tuple[str, Child] | None:
    queue = data.queue
    if not queue.grows:
        return None
    many = "1 job waits" if queue.waiting == 1 else f"{number(queue.waiting)} jobs wait"
    words = (
        f"{many} for a worker, {number(queue.waiting_ten_minutes_ago or 0)} ten minutes ago: more uploads arrive than "
        "can be processed. Nothing is lost; if this continues, raise [workers] count. See "
    )
    return "the queue grows", [words, _link(root, "dashboard/jobs?status=pending", "the waiting jobs"), "."]


def is_empty(data: DashboardData) -> bool:
    return data.database.tables.processing_jobs == 0 and not data.processing.recent_jobs


def _notes(data: DashboardData, root: str) -> list[Child]:
    notes, refused = list[Child](), data.operator.refused_attempts_last_hour
    bad = data.errors.error_summary.last_hour
    if is_empty(data):
        drop = "drop a photo on this page, or " if data.operator.may_act else ""
        notes.append(
            [
                f"Nothing has been uploaded yet: {drop}send one with the ",
                el("a", "line under Recent jobs", href="#recent"),
                ".",
            ]
        )
    elif bad and not _retryable(data) and not many_fail(data):
        words = f"{counted(bad, 'upload')} of the last hour could not be processed; see the "
        notes.append([words, _link(root, failed_jobs(data, HOUR), "failed jobs"), "."])
    if data.redis.status == "down":
        notes.append("Redis does not respond: until it does, each instance counts its own uploads.")
    if refused >= MANY_REFUSED:
        words = f"{counted(refused, 'sign-in')} were refused in the last hour."
        notes.append(f"{words} If that was not you, check who can reach this page.")
    return notes
