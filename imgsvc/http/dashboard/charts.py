"""Charts of what ended and how long it took, as SVG. A bar has its numbers as a tooltip; a table has all of them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain

from ..look.components import NONE, counted, duration, number, table
from ..look.html import Child, Html, el
from .models import ChartStep

HEIGHT = 40.0
WORDS = {  # range: what a step is, as a heading and in a sentence; the axis; how its start is written
    "hour": ("Minute", "per minute", ("1 h ago", "30 min", "now"), "%H:%M"),
    "day": ("Half hour", "per half hour", ("1 day ago", "12 h", "now"), "%H:%M"),
    "week": ("Hour", "per hour", ("7 days ago", "3½ days", "now"), "%a %H:%M"),
}


def charts(range_: str, steps: Sequence[ChartStep]) -> Html:
    """Two charts, and the same numbers as a table."""
    if not any(one.completed or one.failed for one in steps):
        return el("p", f"Nothing ended in the last {range_}.", class_="empty", data_key="charts")
    drawn = el("div", _throughput(range_, steps), _readiness(range_, steps), class_="charts")
    return el("div", drawn, _as_table(range_, steps), class_="figures-over-time", data_key="charts")


def _throughput(range_: str, steps: Sequence[ChartStep]) -> Html:
    most = max(1, *(one.completed for one in steps))
    worst = max(one.failed for one in steps)
    scale = HEIGHT / (most + worst)
    zero = most * scale
    shapes = chain.from_iterable(
        (
            _bar(place, zero - one.completed * scale, one.completed * scale, "completed"),
            _bar(place, zero, one.failed * scale, "failed"),
            _over(range_, place, one),
        )
        for place, one in enumerate(steps)
    )
    completed, failed = sum(one.completed for one in steps), sum(one.failed for one in steps)
    each = WORDS[range_][1]
    label = f"Last {range_}: {number(completed)} completed, {number(failed)} failed, at most {number(most)} {each}"
    title = f"Completed {each}" + (" (failed: below the line)" if worst else "")
    return _figure(range_, title, f"max {number(most)}", _drawing(label, len(steps), zero, shapes))


def _readiness(range_: str, steps: Sequence[ChartStep]) -> Html:
    longest = max(one.avg_ready_seconds or 0 for one in steps)
    scale = HEIGHT / longest if longest else 0
    shapes = chain.from_iterable(
        (
            _bar(place, HEIGHT - (one.avg_ready_seconds or 0) * scale, (one.avg_ready_seconds or 0) * scale, "ready"),
            _over(range_, place, one),
        )
        for place, one in enumerate(steps)
    )
    label = f"From accepted to ready: at most {duration(longest)} on average" if longest else "No image became ready"
    most = f"max {duration(longest)}" if longest else NONE
    return _figure(range_, "From accepted to ready", most, _drawing(label, len(steps), HEIGHT, shapes))


def _bar(place: int, top: float, height: float, kind: str) -> Html | None:
    if not height:
        return None
    return el("rect", class_=kind, x=f"{place + 0.12:g}", width="0.76", y=f"{top:.3f}", height=f"{height:.3f}")


def _over(range_: str, place: int, one: ChartStep) -> Html | None:
    """The tooltip of a step in which something ended."""
    if not (one.completed or one.failed):
        return None
    ready = "" if one.avg_ready_seconds is None else f", ready after {duration(one.avg_ready_seconds)}"
    words = f"{_start(range_, one)}: {number(one.completed)} completed, {number(one.failed)} failed{ready}"
    return el("rect", el("title", words), class_="over", x=place, width=1, y=0, height=f"{HEIGHT:g}")


def _start(range_: str, one: ChartStep) -> str:
    return datetime.fromisoformat(one.start).astimezone(UTC).strftime(f"{WORDS[range_][3]} UTC")


def _drawing(label: str, steps: int, zero: float, shapes: Child) -> Html:
    line = el("line", x1=0, x2=steps, y1=f"{zero:.3f}", y2=f"{zero:.3f}", class_="zero")
    view = f"0 0 {steps} {HEIGHT:g}"
    return el(
        "svg", shapes, line, role="img", aria_label=label, viewBox=view, preserveAspectRatio="none", class_="chart"
    )


def _figure(range_: str, title: str, most: str, drawing: Html) -> Html:
    axis = [el("span", words) for words in WORDS[range_][2]]
    return el(
        "figure",
        el("figcaption", el("span", title), el("span", most, class_="muted")),
        drawing,
        el("div", axis, class_="axis muted", aria_hidden="true"),
    )


def _as_table(range_: str, steps: Sequence[ChartStep]) -> Html:
    busy = [one for one in reversed(steps) if one.completed or one.failed]
    rows = [
        (one.start, (_start(range_, one), number(one.completed), number(one.failed), duration(one.avg_ready_seconds)))
        for one in busy
    ]
    headings = (WORDS[range_][0], "Completed", "Failed", "Ready after")
    summary = f"As a table ({counted(len(busy), 'row')})"
    return el("details", el("summary", summary), table(f"The last {range_}", headings, rows), data_key="table")
