"""The alert rules ask for metrics that exist, by labels that they have, and that move when it happens."""

import re
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
import yaml

from tests.support.told_metrics import Sample
from tests.support.traffic import moments, moved

RULES = files("imgsvc.telemetry").joinpath("alerts.yml").read_text(encoding="utf-8")
FUNCTIONS = {"absent", "delta", "deriv", "histogram_quantile", "increase", "max", "rate", "sum"}
WORDS = {"and", "or", "unless", "by", "on", "without"}
SELECTOR = re.compile(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()\s*(\{(?:[^}\"]|\"[^\"]*\")*\})?")
MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"")
BY = re.compile(r"\b(by|without)\s*\(([\w\s,]*)\)")


@cache
def rules() -> list[dict[str, Any]]:
    groups = yaml.load(RULES, yaml.CSafeLoader)["groups"]  # each process that collects the tests reads it
    return [rule for group in groups for rule in group["rules"]]


def selectors(expr: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Each (metric, its matchers) that the expression asks for."""
    bare = re.sub(r"\[\w+\]", "", BY.sub("", expr))
    assert set(re.findall(r"(\w+)\s*\(", MATCHER.sub("", bare))) - WORDS <= FUNCTIONS
    found = [(name, braces) for name, braces in SELECTOR.findall(bare) if name not in FUNCTIONS | WORDS]
    return [(name, MATCHER.findall(braces)) for name, braces in found]


def matches(sample: Sample, metric: str, matchers: list[tuple[str, str, str]]) -> bool:
    name, labels = sample[0], dict(sample[1])
    return name == metric and all(fits(labels.get(label, ""), how, wanted) for label, how, wanted in matchers)


def fits(found: str, how: str, wanted: str) -> bool:
    equal = bool(re.fullmatch(wanted, found)) if "~" in how else wanted == found
    return equal != how.startswith("!")


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_rule(rule: dict[str, Any]) -> None:
    asked = [one for one in selectors(rule["expr"]) if one[0] != "up"]
    assert asked or rule["alert"] == "ImgsvcDown"
    told = moments()[-1]
    labels: set[str] = set()
    for metric, matchers in asked:
        having = [sample for sample in told if sample[0] == metric]
        assert having, f"{metric} is not exposed"
        known = {label for _, pairs in having for label, _ in pairs}
        labels |= known
        assert {label for label, _, _ in matchers} <= known, f"{metric} has no such labels: {matchers}"
        assert any(matches(sample, metric, matchers) for sample in moved()), f"{metric} {matchers} did not move"
    grouped = {label.strip() for _, by in BY.findall(rule["expr"]) for label in by.split(",")}
    assert grouped <= labels
    shown = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert shown <= grouped


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_form(rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"Imgsvc[A-Z][A-Za-z]+", rule["alert"])
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
    assert rule["labels"].keys() == {"severity"} and rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"].keys() == {"summary", "description"}
    assert len(rule["annotations"]["description"]) > 60
    for opened, closed in ("()", "{}", "[]"):
        assert rule["expr"].count(opened) == rule["expr"].count(closed)


def test_every_rule_has_its_own_name_and_reason() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) > 10
    lines = [line.strip() for line in RULES.splitlines()]
    for number, line in enumerate(lines):
        if line.startswith("- alert:"):
            assert lines[number - 1].startswith("# "), f"{line} says not why"


def test_selectors_are_found() -> None:
    found = selectors('sum by (le) (rate(a_bucket{x=~"[{]y[}].*",z!="1"}[5m])) / sum(rate(b[5m])) > 10e9 and c == 0')
    assert found == [("a_bucket", [("x", "=~", "[{]y[}].*"), ("z", "!=", "1")]), ("b", []), ("c", [])]
