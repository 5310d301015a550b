"""The registry that metrics are made in, and the bounds of its histograms, in seconds."""

from collections.abc import Iterable
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

Child = TypeVar("Child", bound=MetricWrapperBase)

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
FINE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, *SECONDS)  # for durations that are usually milliseconds


class MetricRegistry(CollectorRegistry):
    """A registry without the client library's `_created` series, which would double the number of series."""

    def collect(self) -> Iterable[Metric]:
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self)

    def histogram(self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
        return Histogram(name, text, labels, registry=self, buckets=buckets)


class ByLabels(dict[tuple[str | int, ...], Child]):
    """Caches the children of a metric that each request updates: `labels()` locks and formats texts each time."""

    def __init__(self, metric: Child) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[str | int, ...]) -> Child:
        child = self[labels] = self._metric.labels(*labels)
        return child
