"""The components of the pages: see base.css for how they look."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

from .html import Child, Html, el, foreign

SIGNS = {
    "healthy": "✓",
    "completed": "✓",
    "degraded": "!",
    "retrying": "↻",
    "unhealthy": "✕",
    "down": "✕",
    "failed": "✕",
    "pending": "…",
    "processing": "▸",
    "busy": "▸",
    "idle": "–",
    "starting": "…",
    "disabled": "–",
}
NONE = "–"
MINUTE, HOUR, DAY = 60, 3600, 86_400
KILO, MEGA, GIGA = 1024, 1024**2, 1024**3
SHORT = 10  # seconds and gigabytes below this are shown with a decimal


def card(key: str, title: str, *content: Child, span: int = 12, head: Child = None) -> Html:
    """A card of `.cards`, as wide as `span` of twelve. `key` is the heading's ID; `head` stands beside the heading."""
    heading = el("h2", title, id=key, tabindex="-1")
    top = el("div", heading, head, class_="head") if head else heading
    return el("section", top, *content, class_=f"card span-{span}", aria_labelledby=key, data_key=key)


def state(name: str, words: str | None = None) -> Html:
    """A state as a sign and a word, and in addition a colour."""
    return el(
        "span",
        el("span", SIGNS.get(name, "·"), class_="sign", aria_hidden="true"),
        words or name,
        class_=f"state {name}",
    )


def facts(*pairs: tuple[str, Child] | None) -> Html:
    """Pairs of a word and a value; None is left out."""
    return el(
        "dl", [el("div", el("dt", label), el("dd", value), data_key=label) for label, value in filter(None, pairs)],
        class_="facts",
    )  # fmt: skip


def table(caption: str, headings: Sequence[str], rows: Iterable[tuple[str, Sequence[Child]]], kind: str = "") -> Html:
    """`rows` are (key, cells). The roles stay where a narrow screen shows rows as cards."""
    head = [el("th", words, scope="col", role="columnheader") for words in headings]
    body = [
        el(
            "tr",
            [el("td", cell, role="cell", data_label=words) for cell, words in zip(cells, headings, strict=True)],
            data_key=key,
            role="row",
        )
        for key, cells in rows
    ]
    return el(
        "table",
        el("caption", caption, class_="unseen"),
        el("thead", el("tr", head, role="row"), role="rowgroup"),
        el("tbody", body, role="rowgroup"),
        role="table",
        class_=kind or None,
    )


def empty(*words: Child) -> Html:
    """What stands where nothing is."""
    return el("div", *(el("p", one) for one in words), class_="empty")


def meter(label: Child, percent: float, words: str, high: float = 90) -> Html:
    """A bar of 0 to 100. From `high` on it is marked in words too."""
    share = min(100.0, max(0.0, percent))
    shown = words if share < high else f"{'full' if percent >= 100 else 'high'}: {words}"
    bar = el("meter", shown, min=0, max=100, value=f"{share:g}", low=f"{high:g}", high=f"{high:g}", optimum=0)
    heading = el("span", el("span", label), el("span", shown, class_="muted"), class_="meter-words")
    return el("label", heading, bar, class_="meter")


def copyable(text: str, label: str) -> Html:
    """A text with a button that copies it."""
    return el(
        "div",
        el("code", text, tabindex="0", role="group", aria_label=label),
        el("button", "Copy", type="button", data_action="copy", data_copy=text, aria_label=f"Copy {label}"),
        class_="copyable",
    )


def tabs(label: str, links: Iterable[tuple[str, str, bool]]) -> Html:
    """Links of which one is where the reader is: (words, address, here)."""
    made = [el("a", words, href=address, aria_current="page" if here else None) for words, address, here in links]
    return el("nav", made, class_="tabs", aria_label=label)


def pager(address: str, query: dict[str, str], next_cursor: str | None, *, first: bool) -> Html | None:
    """The links below a list: to the next page by its cursor, and to the first one. None: this is the only one."""
    if first and next_cursor is None:
        return None
    back = None if first else el("a", "To the first page", href=_with(address, query), class_="button")
    more = {**query, "after": next_cursor or ""}
    on = el("a", "Next page", href=_with(address, more), class_="button", rel="next") if next_cursor else None
    return el("nav", el("span", back), el("span", on), class_="pager", aria_label="Pages of the list")


def _with(address: str, query: dict[str, str]) -> str:
    return f"{address}?{urlencode(query)}" if query else address


def field(name: str, label: str, control: Html) -> Html:
    """A field of a form; `control` has `name` as its ID."""
    return el("div", el("label", label, for_=name), control, class_="field", data_key=name)


def choice(name: str, label: str, options: Iterable[tuple[str, str]], chosen: str) -> Html:
    """A field to choose one of (value, words)."""
    made = [el("option", words, value=value, selected=value == chosen) for value, words in options]
    return field(name, label, el("select", made, id=name, name=name))


def text_field(name: str, label: str, value: str, **attributes: str | int | None) -> Html:
    """A field for a line of text."""
    given: dict[str, str | int | bool | None] = {"type": "text", "autocomplete": "off", **attributes}
    return field(name, label, el("input", id=name, name=name, value=value, **given))


def number(value: float, digits: int = 0) -> str:
    """With commas between thousands, and at most so many decimals."""
    written = f"{value:,.{digits}f}"
    return written.rstrip("0").rstrip(".") if digits else written


def counted(amount: int, one: str, many: str | None = None) -> str:
    """'1 job', '2 jobs'."""
    return f"{number(amount)} {one if amount == 1 else many or f'{one}s'}"


def percent(value: float) -> str:
    return f"{number(value, 1 if value < SHORT else 0)} %"


def size(bytes_: float) -> str:
    """'12 kB', '3.4 MB', '1.25 GB'."""
    if bytes_ < MEGA:
        return f"{number(-(-bytes_ // KILO))} kB"
    if bytes_ < GIGA:
        value = bytes_ / MEGA
        return f"{number(value, 1 if value < SHORT else 0)} MB"
    value = bytes_ / GIGA
    return f"{number(value, 2 if value < SHORT else 0)} GB"


def duration(seconds: float | None) -> str:
    """'0.8 s', '45 s', '3 min 5 s', '2 h 5 min', '3 d 4 h'; a dash if there is no value."""
    if seconds is None:
        return NONE
    if seconds < MINUTE:
        return f"{number(seconds, 1 if seconds < SHORT else 0)} s"
    large, name, small, rest = (
        (MINUTE, "min", 1, "s")
        if seconds < HOUR
        else (HOUR, "h", MINUTE, "min")
        if seconds < DAY
        else (DAY, "d", HOUR, "h")
    )
    over = int(seconds % large // small)
    return f"{int(seconds // large)} {name}" + (f" {over} {rest}" if over else "")


def ago(timestamp: str | None, now: datetime) -> Html:
    """'just now', '35 s ago', 'in 40 s', with the exact time as a tooltip. `timestamp` is RFC 3339."""
    if timestamp is None:
        return el("span", NONE)
    moment = datetime.fromisoformat(timestamp)
    seconds = (now - moment).total_seconds()
    words = f"in {whole(-seconds)}" if seconds < -1 else "just now" if seconds < 2 else f"{whole(seconds)} ago"
    return el("time", words, datetime=timestamp, title=exact(timestamp))


def whole(seconds: float) -> str:
    """The largest unit alone: '35 s', '4 min', '2 h', '3 d'."""
    unit, name = next(
        ((unit, name) for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")) if seconds >= unit), (1, "s")
    )
    return f"{int(seconds // unit)} {name}"


def exact(timestamp: str) -> str:
    """'26 Nov 2026, 10:04:31 UTC'."""
    return datetime.fromisoformat(timestamp).astimezone(UTC).strftime("%-d %b %Y, %H:%M:%S UTC")


def picture(source: str | None, address: str | None, alt: str) -> Html:
    """A small picture that leads to a large one, or an empty frame."""
    if source is None:
        return el("span", class_="thumb none", aria_hidden="true")
    image = el("img", src=source, alt=alt, width=48, height=48, decoding="async", loading="lazy")
    return el("a", image, href=address or source, class_="thumb")


def name_or_id(name: str | None, job_id: str, address: str) -> Html:
    """A link to a job: by its file's name where that is known, else by its ID."""
    if name is None:
        return el("a", job_id, href=address, title=job_id, class_="id", aria_label=f"Job {job_id}")
    return el("a", foreign(name), href=address, title=job_id, aria_label=f"{name}, job {job_id}")
