"""The registry that metrics are made in, and the bounds of its histograms, in seconds."""

from collections.abc import Iterable
from threading import Lock
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

Child = TypeVar("Child", bound=MetricWrapperBase)

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
FINE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, *SECONDS)  # for durations that are usually milliseconds


class MetricRegistry(CollectorRegistry):
    """A registry without the client library's `_created` series, which would double the number of series."""

    def __init__(self) -> None:
        super().__init__(auto_describe=False)
        self._at_zero: list[tuple[MetricWrapperBase, tuple[str, ...]]] = []
        self._beginning = Lock()  # scrapes are answered in threads

    def begin_at_zero(self, metric: MetricWrapperBase, *labels: str) -> None:
        """Show this series from the first scrape on: a rate needs a first value, or the first failure would not count.

        It is created by that scrape: together they take milliseconds, which a start would wait for.
        """
        self._at_zero.append((metric, labels))

    def collect(self) -> Iterable[Metric]:
        with self._beginning:
            for series, labels in self._at_zero:
                series.labels(*labels)
            self._at_zero.clear()
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
        self.metric = metric

    def __missing__(self, labels: tuple[str | int, ...]) -> Child:
        child = self[labels] = self.metric.labels(*labels)
        return child
