"""The page of pictures: its first ones are in the page itself, and its script asks for the others."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...jobs.table.model import STATUSES, Job, as_text, now
from ...lazy_dataclass import dataclass
from ...settings.sizes import Size, longer_side
from ..look.components import choice, empty, pager, text_field
from ..look.frame import page, root_of
from ..look.html import Html, el, foreign
from ..openapi.operations import operation
from ..operator.images import READER, OperatorQuery, owned, wanted_by
from ..state import state_of
from ..wire.image_list import next_of, page_of
from ..wire.problems import Problem
from .filters import FROM, UNTIL, given, query_of, reason_of, time_field
from .guard import PAGES, operators_page

FIRST_PAGE = 60  # pictures in the page itself: more than most screens show
SHARP_SIDE = 300  # pixels of the longer side that a picture of the first page should have
UNKNOWN_SIDES = {"width": 1, "height": 1}
KEYS = "Arrow keys move from picture to picture, Enter opens one, Space selects it, Delete deletes what is selected."


@dataclass(frozen=True, slots=True)
class Found:
    """The pictures of a page, the cursor of the next one, and the filters as the API takes them."""

    jobs: list[Job]
    next: str | None
    filters: dict[str, str]


NOTHING = Found([], None, {})


@operation("dashboard_images_page", "operator", "The pictures, as a page", access="operator", answers=PAGES)
@operators_page
async def images(request: Request) -> Response:
    """Those of all users, newest first, by the filters of its form. `[operator] public` does not open it."""
    sent = given(request)
    found, problem = await _found(request, sent)
    return await page(
        request,
        "Pictures",
        el("h1", "Pictures", tabindex="-1"),
        _filters(request, sent),
        el("p", problem, id="problem", class_="problem", role="alert"),
        _selection(),
        _grid(request, sent, found or NOTHING, listed=found is not None),
        el("ul", id="deletions", aria_label="Deletions that can be undone"),
        _lightbox(),
        here="images",
        scripts=("pictures.js",),
        styles=("pictures.css",),
        body_class="wide",
    )


async def _found(request: Request, sent: Mapping[str, str]) -> tuple[Found | None, str]:
    """The first pictures; None, and in words why, for wrong filters."""
    query, problem = query_of({**sent, "limit": str(FIRST_PAGE)}, OperatorQuery)
    if query is None:
        return None, problem
    wanted = wanted_by(query)
    try:
        found = await page_of(request, query, wanted, READER)
    except Problem as refused:
        return None, reason_of(refused)
    filters = query.model_dump(exclude={"limit", "after"}, exclude_none=True)
    return Found(found.jobs, next_of(request, found, wanted, READER), filters), ""


def _filters(request: Request, sent: Mapping[str, str]) -> Html:
    """The form, with what was asked for. It is sent as an address, so that "back" leads to the filters before."""
    address = f"{root_of(request)}/dashboard/images"

    def line(name: str, label: str, **attributes: str) -> Html:
        return text_field(name, label, sent.get(name, ""), **attributes)

    more = (
        line("bucket", "Bucket"),
        line("user", "User"),
        line("org", "Organisation"),
        time_field(FROM, "From", sent),
        time_field(UNTIL, "Until", sent),
    )
    fields = (
        line("q", "Name begins with"),
        choice("status", "State", (("", "any"), *((name, name) for name in STATUSES)), sent.get("status", "")),
        el("details", el("summary", "More filters"), el("div", more), open=bool(sent.keys() - {"q", "status"})),
    )
    act = el(
        "div",
        el("button", "Filter", type="submit", class_="main"),
        el("a", "All pictures", href=address, class_="button quiet"),
        class_="do",
    )
    return el("search", el("form", fields, act, id="filters", class_="filters", action=address, method="get"))


def _selection() -> Html:
    return el(
        "div",
        el("span", id="selected"),
        _button("delete-selected", "Delete", class_="danger"),
        _button("select-all", "Select all that are loaded"),
        _button("select-none", "Select none"),
        id="selection",
        hidden=True,
    )


def _grid(request: Request, sent: Mapping[str, str], found: Found, *, listed: bool) -> Html:
    urls, settings = state_of(request).stores.urls, state_of(request).settings
    sizes = settings.images.sizes
    data: dict[str, Any] = {
        "images": [owned(job, urls).model_dump(mode="json") for job in found.jobs],
        "next": found.next,
        "filters": found.filters,
        "sizes": {name: longer_side(size) for name, size in sizes.items()},
        "cut": [name for name, size in sizes.items() if isinstance(size, Size) and size.fit == "cover"],
        "public_url": request.app.state.public_url,
        "now": as_text(now()),
    }
    return el(
        "div",
        el("p", KEYS, id="keys", class_="unseen"),
        el(
            "div",
            id="grid",
            role="grid",
            aria_label="Pictures, the newest first",
            aria_describedby="keys",
            aria_multiselectable="true",
            hidden=True,
        ),
        el("div", _first(request, sent, found) if listed else None, id="first"),
        el("p", id="end", class_="muted", role="status"),
        el("button", "Try again", type="button", id="again", data_action="again", hidden=True),
        id="pictures",
        data_page=json.dumps(data, ensure_ascii=False, separators=(",", ":")),
    )


def _first(request: Request, sent: Mapping[str, str], found: Found) -> tuple[Html, ...]:
    """The pictures as they are seen until the script has laid them out, and without a script."""
    if not found.jobs and found.next is None:
        return (empty("No picture matches."),)
    shown = el("ul", [_picture(request, job) for job in found.jobs])
    filters = {name: text for name, text in sent.items() if name != "after"}
    further = pager(f"{root_of(request)}/dashboard/images", filters, found.next, first="after" not in sent)
    return (shown, further) if further else (shown,)


def _picture(request: Request, job: Job) -> Html:
    name = job.original_filename or f"Image {job.image_id}"
    urls, public_url = state_of(request).stores.urls.direct(job), request.app.state.public_url
    if not urls:
        return el("li", el("span", foreign(name), f": {job.status}", class_="waits"))
    here = {variant: f"{root_of(request)}{url.removeprefix(public_url)}" for variant, url in urls.items()}
    sides = job.measured.get("original_dimensions") or UNKNOWN_SIDES
    box = {"width": sides["width"], "height": sides["height"]}
    colour = job.measured.get("dominant_color") or "none"
    ground = el(  # an attribute of SVG: the policy allows no styles in a page
        "svg",
        el("rect", width="100%", height="100%", fill=colour),
        viewBox=f"0 0 {box['width']} {box['height']}",
        aria_hidden="true",
        **box,
    )
    image = el("img", src=here[_sharp(job, here)], alt=name, loading="lazy", decoding="async", **box)
    return el("li", el("a", ground, image, href=here[next(iter(here))]))


def _sharp(job: Job, ready: dict[str, str]) -> str:
    """The smallest whole variant that is large enough; without any, the largest."""
    whole = [one for one in job.recipe.variants if one.name in ready and not one.cover]
    enough = [one.name for one in whole if one.side >= SHARP_SIDE]
    return enough[-1] if enough else whole[0].name if whole else next(iter(ready))


def _lightbox() -> Html:
    """One picture, large. The script fills it."""
    buttons = el(
        "p",
        _button("previous", "←", aria_label="Previous picture"),
        _button("next", "→", aria_label="Next picture"),
        _button("close", "Close"),
        class_="actions",
    )
    panel = el(
        "div",
        el("div", el("h2", "Picture", id="shown-name", tabindex="-1"), buttons, class_="head"),
        el("p", id="shown-announcements", class_="unseen", role="status"),
        el("p", id="shown-problem", class_="problem", role="alert"),
        el("div", id="shown-body"),
        class_="panel",
    )
    return el("dialog", el("div", id="stage"), panel, id="lightbox", aria_labelledby="shown-name")


def _button(action: str, words: str, **attributes: str) -> Html:
    return el("button", words, type="button", data_action=action, **attributes)
