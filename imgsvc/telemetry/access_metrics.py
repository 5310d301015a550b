"""The metrics of API keys, upload tickets, lists of images, and people who are erased."""

from math import nan
from typing import Literal, get_args

from .metric_registry import MetricRegistry

TicketOutcome = Literal["issued", "spent", "refused"]
PageEnd = Literal["full", "last", "bounded"]


class AccessMetrics:
    """`keys` are those that are not revoked, `being_erased` people. None means unknown."""

    def __init__(self, registry: MetricRegistry) -> None:
        self._keys = registry.gauge("api_keys", "API keys that are not revoked.")
        self._key_uses = registry.counter(
            "api_key_requests_total",
            "Requests with an API key by outcome; refused: there is no such key, or it was revoked.",
            "outcome",
        )
        self._tickets = registry.counter(
            "upload_tickets_total",
            "Upload tickets that were issued, uploads accepted with one (spent), and requests with one that was spent, "
            "over or unknown (refused).",
            "outcome",
        )
        self._pages = registry.counter(
            "image_list_pages_total",
            "Pages of lists of images; full: a further one follows, last: none does, bounded: it ended after looking "
            "at as many rows as a page may.",
            "end",
        )
        self._being_erased = registry.gauge("people_being_erased", "People whose erasure has not ended yet.")
        self._erased = registry.counter("people_erased_total", "People of whom everything was erased.")
        for outcome in ("accepted", "refused"):
            registry.begin_at_zero(self._key_uses, outcome)
        for ticket in get_args(TicketOutcome):
            registry.begin_at_zero(self._tickets, ticket)
        for end in get_args(PageEnd):
            registry.begin_at_zero(self._pages, end)

    def key_used(self, *, accepted: bool) -> None:
        self._key_uses.labels("accepted" if accepted else "refused").inc()

    def ticket(self, outcome: TicketOutcome) -> None:
        self._tickets.labels(outcome).inc()

    def page(self, end: PageEnd) -> None:
        self._pages.labels(end).inc()

    def erased(self) -> None:
        self._erased.inc()

    def measured(self, keys: int | None, being_erased: int) -> None:
        self._keys.set(nan if keys is None else keys)
        self._being_erased.set(being_erased)
