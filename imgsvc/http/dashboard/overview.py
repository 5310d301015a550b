"""/dashboard: how the service is, in one sentence; what it does; what it is made of."""

from datetime import datetime
from typing import Any

from ...jobs.table.model import STATUSES
from ..look.components import card, counted, duration, number, percent, state, tabs
from ..look.html import Child, Html, el, join
from ..operator.jobs import ErrorGroup
from . import overview_cards as cards
from .charts import charts
from .cluster_card import cluster
from .jobs_page import errors_card
from .models import DashboardData, Span
from .spans import DAY, HOUR, WEEK
from .state_words import STATE_WORDS
from .verdict import Verdict, failed_jobs, verdict_of

RANGES = {"hour": HOUR, "day": DAY, "week": WEEK}


def overview(data: DashboardData, groups: list[ErrorGroup], root: str, address: str, range_: str) -> Html:
    """The content of the page. `address` is the service's own, for the line to upload with."""
    moment = datetime.fromisoformat(data.system.timestamp)
    return join(
        _verdict(verdict_of(data, root), data),
        el(
            "div",
            _work(data, root, range_),
            _upload(data),
            errors_card(groups, root, moment) if groups else None,
            cards.retrying(data, root, moment),
            cards.recent(data, root, address, moment),
            cards.workers(data, root),
            cards.machine(data),
            cluster(data),
            cards.storage(data, root),
            cards.limits(data),
            cards.webhooks(data, root),
            cards.credentials(data, root),
            cards.redis(data),
            cards.configuration(data),
            class_="cards numbers",
            data_key="cards",
        ),
    )


def level_of(data: DashboardData) -> str:
    """good, warn or bad."""
    return verdict_of(data, ".").level


def _verdict(verdict: Verdict, data: DashboardData) -> Html:
    checks = [
        el(
            "li",
            state(check.status, name),
            el("span", f" is {check.status}: ", class_="unseen"),
            el("span", check.detail, class_="muted"),
            data_key=name,
        )
        for name, check in sorted(data.health.checks.items())
    ]
    return el(
        "section",
        el("div", el("h1", el("span", verdict.line, id="verdict-line", role="status")), _refreshing(), class_="head"),
        el("ul", [el("li", item) for item in verdict.items], id="advice") if verdict.items else None,
        el(
            "details",
            el("summary", counted(len(checks), "check"), " every 5 seconds"),
            el("ul", checks, id="checks"),
            data_key="checks",
        ),
        id="verdict",
        class_=f"notice {verdict.level}",
        aria_label="State of the service",
        data_key="verdict",
    )


def _refreshing() -> Html:
    """The switch of the automatic refresh, shown by the script."""
    return el(
        "p",
        el(
            "button",
            el("span", class_="knob", aria_hidden="true"),
            "Refresh every 5 s",
            type="button",
            id="pause",
            role="switch",
            aria_checked="true",
            data_action="pause",
        ),
        el("span", id="countdown", class_="muted", role="timer", aria_live="off"),
        id="live",
        class_="live",
        hidden=True,
        data_keep="",
    )


def _work(data: DashboardData, root: str, range_: str) -> Html:
    processing = data.processing
    states = [
        el(
            "a",
            el("strong", number(processing.jobs_by_status.get(name, 0))),
            state(name, STATE_WORDS[name]),
            href=f"{root}/dashboard/jobs?status={name}",
            data_key=name,
        )
        for name in STATUSES
    ]
    spans = {"hour": processing.performance.last_hour, "day": processing.performance.last_24h}
    steps = {"hour": processing.minutes, "day": processing.half_hours}
    ranges = [(one.capitalize(), f"?range={one}", one == range_) for one in RANGES]
    return card(
        "work",
        "Jobs",
        el("div", states, class_="figures", data_key="states"),
        el("div", el("h3", f"The last {range_}", id="range"), tabs("Time", ranges), class_="head", data_key="ranges"),
        _span(spans.get(range_, processing.performance.last_7d), f"{root}/{failed_jobs(data, RANGES[range_])}"),
        charts(range_, steps.get(range_, processing.hours)),
        span=8 if data.operator.may_act else 12,
    )


def _span(span: Span, address: str) -> Html:
    """`address` is that of the failed jobs."""
    failed = f"{number(span.failed)} failed"
    share = f" ({percent(100 * span.failed / span.total)})" if span.failed else ""
    parts: list[Child] = [
        f"{counted(span.total, 'job')} ended: {number(span.completed)} completed, ",
        el("a", failed, href=address) if span.failed else failed,
        f"{share}.",
    ]
    if span.avg_ready_seconds is not None:
        parts.append(
            f" On average a picture was ready {duration(span.avg_ready_seconds)} after its upload was accepted; the "
            f"work itself took {duration(span.avg_processing_time_seconds)}."
        )
    return el("p", parts, id="span", data_key="span")


def _upload(data: DashboardData) -> Html | None:
    """Its script looks after what is in it."""
    if not data.operator.may_act:
        return None
    files: dict[str, Any] = {"type": "file", "id": "files", "multiple": True, "accept": "image/*"}
    token: dict[str, Any] = {"id": "token", "type": "password", "autocomplete": "off", "spellcheck": "false"}
    bucket: dict[str, Any] = {"id": "bucket", "value": "photos", "autocomplete": "off", "maxlength": 320}
    ours = data.operator.can_make_tokens
    choose = el("label", el("input", **files), el("span", "Choose photos"), class_="choose")
    label = "Upload token, from your identity provider"
    return el(
        "section",
        el("h2", "Upload", id="upload-title", tabindex="-1"),
        el("div", choose, el("span", "or drop them anywhere on this page", class_="muted"), class_="drop"),
        el("p", el("label", "Bucket", for_="bucket"), el("input", **bucket), class_="field"),
        el("p", el("label", label, for_="token"), el("input", **token), id="token-field", class_="field", hidden=ours),
        el("ul", id="uploads", aria_label="Uploads of this page"),
        el("p", el("button", "Clear", type="button", id="clear", data_action="clear", hidden=True)),
        id="upload",
        class_="card span-4",
        aria_labelledby="upload-title",
        data_key="upload",
        data_keep="",
        data_tokens="ours" if ours else "pasted",
    )
