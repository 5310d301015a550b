"""The samples of an answer at /metrics, read by the parser of prometheus_client.

It takes longer than the service that answers, so that each series is parsed once and then known by its text.
"""

from functools import lru_cache

from prometheus_client.parser import text_string_to_metric_families

Sample = tuple[str, frozenset[tuple[str, str]]]


def samples(text: str) -> dict[Sample, float]:
    """{(name, labels): value}. Raises ValueError for what is no exposition format."""
    told = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            told[_parsed(series)] = float(value)
    return told


@lru_cache(maxsize=10_000)
def _parsed(series: str) -> Sample:
    ((one,),) = (family.samples for family in text_string_to_metric_families(f"{series} 0\n"))
    return one.name, frozenset(one.labels.items())
