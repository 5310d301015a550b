"""/dashboard/care/…: webhooks and their log, API keys and tickets, users and what they have stored."""

from datetime import datetime
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from ...access.permissions import UPLOAD
from ...access.tokens import DEFAULT_ORG
from ...jobs import webhook_views as views
from ...jobs.erasure_views import ErasureReport
from ...jobs.table.byte_quota import UsageOfUser
from ...jobs.table.credentials import ApiKey, UploadTicket
from ...jobs.table.model import now
from ..look.components import NONE, ago, card, counted, empty, number, size, state, table, text_field
from ..look.frame import root_of
from ..look.html import Html, el, foreign
from ..openapi.operations import operation
from ..state import state_of
from .care_page import action, care_page
from .filters import given
from .guard import PAGES, operators_page

LOGGED, LISTED = 50, 50
REASONS = {  # why there was no answer
    "url": "malformed address",
    "name": "unknown host",
    "address": "address not allowed",
    "connect": "no connection",
    "tls": "wrong certificate",
    "timeout": "too late",
    "answer": "malformed answer",
    "too_large": "answer too large",
}
WEBHOOKS, KEYS = "api/v1/operator/webhooks", "api/v1/operator/keys"


@operation("dashboard_webhooks_page", "operator", "Webhooks, as a page", access="operator", answers=PAGES)
@operators_page
async def webhooks_page(request: Request) -> Response:
    """What waits for each endpoint, and its delivery log. `[operator] public` does not open it."""
    store = state_of(request).telling.table
    found = (await views.listed(store)).webhooks
    cards = [_webhook(one, await views.logged(store, one.name, LOGGED)) for one in found]
    none = empty("No webhook is configured.", "Add one to [[webhooks]] in config.toml.")
    return await care_page(request, "Webhooks", el("div", cards or none, class_="cards"))


def _webhook(one: views.WebhookEndpoint, log: views.WebhookLog) -> Html:
    moment, path = now(), f"{WEBHOOKS}/{quote(one.name, safe='')}"
    words = (
        state("failed", "switched off: it answered 410")
        if one.switched_off_at
        else state("degraded", "too many waited: the oldest were given up")
        if one.overflowed_at
        else state("healthy", "on")
    )
    waits = f"{counted(one.waiting, 'delivery', 'deliveries')} waiting"
    since = (
        el("span", ", the oldest from ", ago(one.oldest_waiting_since, moment)) if one.oldest_waiting_since else None
    )
    acts = el(
        "div",
        action(f"{path}/test", f"webhook {one.name}", "Send a test", done="test"),
        action(f"{path}/replay", f"webhook {one.name}", "Send given-up deliveries again", done="replay"),
        action(f"{path}/enable", f"webhook {one.name}", "Switch on", done="reload") if one.switched_off_at else None,
        class_="actions",
    )
    return card(
        f"webhook-{one.name}",
        one.name,
        el("p", words, " ", waits, since),
        acts,
        _attempts(one.name, log, moment),
    )


def _attempts(name: str, log: views.WebhookLog, moment: datetime) -> Html:
    rows = [
        (
            f"{attempt.webhook_id} {attempt.attempt} {place}",
            (
                ago(attempt.started_at, moment),
                attempt.event or NONE,
                str(attempt.status or REASONS.get(attempt.reason or "", attempt.reason) or NONE),
                f"{number(attempt.milliseconds)} ms",
                str(attempt.attempt),
                (attempt.state or NONE).replace("_", " "),
            ),
        )
        for place, attempt in enumerate(log.attempts)
    ]
    headings = ("When", "Event", "Answer", "Time", "Attempt", "Delivery is")
    return table(f"Delivery log of {name}", headings, rows) if rows else empty("Nothing has been sent yet.")


@operation("dashboard_keys_page", "operator", "API keys and tickets, as a page", access="operator", answers=PAGES)
@operators_page
async def keys_page(request: Request) -> Response:
    """All keys, and the tickets that can still be used. `[operator] public` does not open it."""
    credentials = state_of(request).access.credentials
    keys, tickets = await credentials.keys(), await credentials.open_tickets(LISTED + 1)
    in_use = sum(key.revoked_at is None for key in keys)
    content = el(
        "div",
        card("new-key", "A new key", _new_key()),
        card("keys", "API keys", _keys(keys) if keys else empty("There is no key."), head=_amount(in_use, "in use")),
        card(
            "tickets",
            "Tickets that can be used",
            _tickets(tickets[:LISTED]) if tickets else empty("There is none."),
            head=_amount(len(tickets), "open", most=LISTED),
        ),
        class_="cards",
    )
    return await care_page(request, "Keys and tickets", content)


def _amount(found: int, words: str, most: int | None = None) -> Html:
    """'3 in use', or 'more than 50 open' where the rest is not counted."""
    shown = number(found) if most is None or found <= most else f"more than {number(most)}"
    return el("span", f"{shown} {words}", class_="muted")


def _new_key() -> Html:
    fields = (
        text_field("name", "Name of the application", "", required="", maxlength=255),
        text_field("sub", "User that it acts as", "", required="", maxlength=255),
        text_field("org", "Organisation", DEFAULT_ORG, required="", maxlength=255),
        text_field("permissions", "Permissions, separated by spaces", UPLOAD, data_kind="words"),
        text_field("buckets", "Only these buckets (empty: all)", "", data_kind="buckets"),
    )
    shown = el("div", id="created", role="status")
    return el("div", action(KEYS, "API key", "Create", *fields, done="key"), shown)


def _keys(keys: list[ApiKey]) -> Html:
    moment = now()
    rows = [
        (
            key.key_id,
            (
                foreign(key.name),
                el("span", foreign(key.user_id), " of ", foreign(key.org_id)),
                foreign(" ".join(key.permissions)),
                ago(key.created_at, moment),
                ago(key.last_used_at, moment),
                el("span", "revoked ", ago(key.revoked_at, moment)) if key.revoked_at else _revoke(key),
            ),
        )
        for key in keys
    ]
    return table("API keys", ("Name", "Acts as", "May", "Created", "Last used", "Revoke"), rows)


def _revoke(key: ApiKey) -> Html:
    question = f"Revoke the key {key.name}? Its users are refused from then on. This can't be undone."
    path = f"{KEYS}/{key.key_id}"
    return action(path, f"key {key.name}", "Revoke", method="DELETE", ask=question, done="reload")


def _tickets(tickets: list[UploadTicket]) -> Html:
    moment = now()
    rows = [
        (
            one.ticket_id,
            (
                el("span", foreign(one.user_id), " of ", foreign(one.org_id)),
                foreign(one.bucket),
                counted(one.uploads_left, "upload"),
                ago(one.expires_at, moment),
            ),
        )
        for one in tickets
    ]
    return table("Tickets", ("Issued by", "Bucket", "Left", "Ends"), rows)


@operation("dashboard_users_page", "operator", "Users and usage, as a page", access="operator", answers=PAGES)
@operators_page
async def users_page(request: Request) -> Response:
    """What each user has stored, by organisation and name, and erasing one. `[operator] public` does not open it."""
    sent, jobs = given(request), state_of(request).jobs
    user = sent.get("user", "")
    org = sent.get("org", DEFAULT_ORG if user else "")
    users = await jobs.table.limits.usage_from(org, user, LISTED + 1)
    reports = [ErasureReport.of(one) for one in await jobs.table.erasures.latest()]
    content = el(
        "div",
        card("users", "Users", _find(request, org, user), _users(request, users)),
        card("erase", "Erase a person", *_erase()),
        card("erased", "Erased people", _erased(reports)) if reports else None,
        class_="cards",
    )
    return await care_page(request, "Users", content)


def _find(request: Request, org: str, user: str) -> Html:
    fields = (
        text_field("org", "From this organisation on", org, maxlength=255),
        text_field("user", "From this user on", user, maxlength=255),
    )
    act = el("div", el("button", "Show", type="submit", class_="main"), class_="do")
    address = f"{root_of(request)}/dashboard/care/users"
    return el("search", el("form", fields, act, class_="filters", action=address, method="get"))


def _users(request: Request, users: list[UsageOfUser]) -> Html:
    if not users:
        return empty("No further users have stored anything.")
    root = root_of(request)
    rows = [
        (
            f"{one.org_id} {one.user_id}",
            (
                el("a", foreign(one.user_id), href=f"{root}/dashboard/images?{_of(one)}"),
                foreign(one.org_id),
                number(one.images),
                size(one.bytes),
            ),
        )
        for one in users[:LISTED]
    ]
    return el("div", table("Users", ("User", "Organisation", "Images", "Stored"), rows), _further(root, users[LISTED:]))


def _further(root: str, following: list[UsageOfUser]) -> Html | None:
    if not following:
        return None
    address = f"{root}/dashboard/care/users?{_of(following[0])}"
    return el("p", el("a", "Further users", href=address, class_="button"))


def _of(one: UsageOfUser) -> str:
    return urlencode({"org": one.org_id, "user": one.user_id})


def _erase() -> tuple[Html, ...]:
    fields = (
        text_field("erase-user", "User", "", required="", maxlength=255),
        text_field("erase-org", "Organisation", DEFAULT_ORG, required="", maxlength=255),
        text_field("erase-again", "The user again, to be sure", "", required="", maxlength=255),
    )
    form = action(
        "api/v1/operator/users",
        "a person",
        "Erase",
        *fields,
        method="DELETE",
        ask="Erase everything of {user}?",
        done="erase",
    )
    words = "Images, files, keys, tickets, counts, deliveries, and the names in the audit trail. It can't be undone."
    return el("p", words), form


def _erased(reports: list[ErasureReport]) -> Html:
    moment = now()
    rows = [
        (
            one.erasure_id,
            (
                el("span", one.erasure_id, class_="id", title=one.erasure_id),
                state("completed", "done") if one.ended_at else state("processing", f"running: {one.step}"),
                ago(one.started_at, moment),
                ", ".join(f"{number(amount)} {name.replace('_', ' ')}" for name, amount in one.counts.items() if amount)
                or NONE,
            ),
        )
        for one in reports
    ]
    return table("Erasures", ("Report", "State", "Began", "Removed"), rows)
