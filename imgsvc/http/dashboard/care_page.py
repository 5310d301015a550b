"""/dashboard/care: the tasks of the storage, and what the pages of care have in common."""

from starlette.requests import Request
from starlette.responses import Response

from ...jobs.table.model import now
from ...maintenance.report import StorageTask
from ..look.components import ago, card, counted, empty, facts, field, number, state, table, tabs, text_field
from ..look.frame import page, root_of
from ..look.html import Child, Html, el, foreign
from ..openapi.operations import operation
from ..state import state_of
from .guard import PAGES, operators_page

TABS = (
    ("Storage", "dashboard/care"),
    ("Webhooks", "dashboard/care/webhooks"),
    ("Keys and tickets", "dashboard/care/keys"),
    ("Users", "dashboard/care/users"),
)
STATES = {
    "running": ("processing", "running"),
    "done": ("completed", "done"),
    "failed": ("failed", "failed"),
    "cancelled": ("degraded", "cancelled"),
}
SHOWN_FINDINGS = 20


async def care_page(request: Request, title: str, *content: Child, live: bool = False) -> Response:
    """A page of care, with the tabs of all of them."""
    root = root_of(request)
    links = [(words, f"{root}/{address}", words == title) for words, address in TABS]
    return await page(
        request,
        f"{title} · Care",
        el("h1", "Care"),
        tabs("Care", links),
        *content,
        here="care",
        scripts=("care.js", *(("live.js",) if live else ())),
    )


def action(path: str, label: str, words: str, *fields: Html, method: str = "POST", ask: str = "", **more: str) -> Html:
    """A form that care.js sends as JSON to `path` of the API; `ask` is asked first. `label` names it for a reader."""
    button = el("button", words, type="submit", class_="danger" if ask else None, aria_label=f"{words}: {label}")
    return el(
        "form",
        fields,
        el("div", button, el("span", class_="said", role="status"), class_="actions"),
        data_path=path,
        data_method=method,
        data_ask=ask or None,
        data_key=f"{method} {path}",
        class_="filters" if fields else None,
        **{f"data_{name}": value for name, value in more.items()},
    )


def tick(name: str, label: str, *, prefix: str, checked: bool = False, inverse: bool = False) -> Html:
    """A box to tick; with `inverse` a tick sends false."""
    box = el(
        "input",
        type="checkbox",
        id=f"{prefix}-{name}",
        name=name,
        checked=checked,
        data_kind="unless" if inverse else "flag",
    )
    return el("div", el("label", box, " ", label, for_=f"{prefix}-{name}"), class_="field")


@operation("dashboard_care_page", "operator", "Tasks of the storage, as a page", access="operator", answers=PAGES)
@operators_page
async def storage_page(request: Request) -> Response:
    """The task that runs or ran last, and forms that start one. `[operator] public` does not open it."""
    state_ = state_of(request)
    task = StorageTask.of(state_.maintenance.task)
    content = el(
        "div",
        card("task", "The task", _task(task)),
        card(
            "verify",
            "Check",
            el("p", "Compares the database with the stored files. Changes nothing."),
            _verify(),
            span=6,
        ),
        card("gc", "Clean up", el("p", "Lists files that belong to no picture, or removes them."), _gc(), span=6),
        card(
            "migrate",
            "Move",
            el("p", "Moves images to another backend, while they stay available."),
            _migrate(),
            span=6,
        ),
        card(
            "backup",
            "Back up",
            el("p", "Into a folder of the service’s machine. It contains the secrets."),
            _backup(),
            span=6,
        ),
        class_="cards",
        data_key="cards",
    )
    return await care_page(request, "Storage", content, live=True)


def _task(task: StorageTask) -> Html:
    if task.state == "none":
        return empty("No task has run since the service started.")
    sign, words = STATES[task.state]
    moment, running = now(), task.state == "running"
    progress = (
        el("progress", max=task.total, value=task.done, aria_label="Progress") if running and task.total else None
    )
    return el(
        "div",
        facts(
            ("Task", task.verb or ""),
            ("State", state(sign, words)),
            ("Began", ago(task.began_at, moment)),
            None if running else ("Ended", ago(task.ended_at, moment)),
            ("Phase", f"{task.phase}: {number(task.done)} of {number(task.total)}") if task.total else None,
            *((name.replace("_", " "), number(amount)) for name, amount in task.counts.items()),
            ("Error", foreign(task.error)) if task.error else None,
        ),
        progress,
        _findings(task) if task.findings else None,
        action("api/v1/operator/storage/task", "the task", "Cancel", method="DELETE") if running else None,
        data_key="of task",
    )


def _findings(task: StorageTask) -> Html:
    shown = task.findings[:SHOWN_FINDINGS]
    rows = [(f"{one.kind} {one.path}", (one.kind, one.backend, foreign(one.path))) for one in shown]
    left = task.found - len(shown)
    return el(
        "div",
        table("What was found", ("What", "Backend", "File"), rows),
        el("p", f"And {counted(left, 'other')}.", class_="muted") if left else None,
    )


def _verify() -> Html:
    digests = tick("digests", "Also read every file and compare its SHA-256", prefix="verify")
    return action("api/v1/operator/storage/verify", "the storage", "Check", digests)


def _gc() -> Html:
    hours = field(
        "gc-age",
        "Only files older than (hours)",
        el("input", id="gc-age", name="older_than_seconds", type="number", min=0, value=24, data_kind="hours"),
    )
    remove = tick("dry_run", "Remove them, and don’t only list them", prefix="gc", inverse=True)
    return action("api/v1/operator/storage/gc", "files of no picture", "Clean up", hours, remove)


def _migrate() -> Html:
    to = text_field("to", "To the backend", "", required="", maxlength=32)
    only = tick("dry_run", "Only count", prefix="migrate")
    return action("api/v1/operator/storage/migrate", "images to another backend", "Move", to, only)


def _backup() -> Html:
    where = text_field("destination", "Folder", "", required="", placeholder="/var/backups/imgsvc")
    others = tick("with_s3", "Also the files of other backends", prefix="backup")
    return action("api/v1/operator/storage/backup", "the service", "Back up", where, others)
