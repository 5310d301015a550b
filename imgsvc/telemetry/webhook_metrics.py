"""The metrics of webhooks, in a module of their own since they follow the names in the settings."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from math import nan

from ..jobs.table.model import now
from ..jobs.table.webhook_table import EndpointState
from .metric_registry import MetricRegistry


class WebhookMetrics:
    """Deliveries of webhooks. `names` are those of the settings."""

    def __init__(self, registry: MetricRegistry, names: Iterable[str]) -> None:
        self._names = tuple(names)
        self._attempts = registry.counter(
            "webhook_attempts_total",
            "Requests to an endpoint by outcome: delivered (2xx), refused (another status), gone (410), unreachable; "
            "given_up: deliveries that were not accepted in three days.",
            "webhook",
            "outcome",
        )
        self._seconds = registry.histogram("webhook_attempt_duration_seconds", "Time of one request.", "webhook")
        self._waiting = registry.gauge("webhook_deliveries_waiting", "Deliveries that wait for an endpoint.", "webhook")
        self._off = registry.gauge("webhook_switched_off", "1: the endpoint answered 410 and is not called.", "webhook")
        self._oldest = registry.gauge(
            "webhook_oldest_waiting_seconds", "How long the first delivery of an endpoint has waited.", "webhook"
        )
        for name in self._names:
            registry.begin_at_zero(self._seconds, name)
            for outcome in ("delivered", "refused", "gone", "unreachable", "given_up"):
                registry.begin_at_zero(self._attempts, name, outcome)

    def attempted(self, webhook: str, outcome: str, seconds: float) -> None:
        self._attempts.labels(webhook, outcome).inc()
        if outcome != "given_up":
            self._seconds.labels(webhook).observe(seconds)

    def measured(self, states: Mapping[str, EndpointState] | None) -> None:
        """Set what is read on scrape. None means unknown."""
        moment = now()
        for name in self._names:
            state = states.get(name) if states else None
            self._waiting.labels(name).set(state.waiting if state else nan)
            self._off.labels(name).set(state.switched_off_at is not None if state else nan)
            oldest = (moment - datetime.fromisoformat(state.oldest)).total_seconds() if state and state.oldest else 0
            self._oldest.labels(name).set(oldest if state else nan)
