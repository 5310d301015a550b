"""The page of pictures: its first ones are in the page itself, and its script asks for the others."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from ...jobs.table.model import STATUSES, Job, as_text, now
from ...settings.sizes import Size, longer_side
from ..look.components import choice, empty, pager, text_field
from ..look.frame import page, root_of
from ..look.html import Html, el, foreign
from ..openapi.operations import PAGE, Answer, operation
from ..operator import auth
from ..operator.images import READER, OperatorQuery, owned, wanted_by
from ..state import state_of
from ..wire.image_list import next_of, page_of
from ..wire.problems import Problem
from ..wire.validation import StrictQuery, invalid, parsed
from .guard import PAGES, operators_page

FIRST_PAGE = 60  # pictures in the page itself: more than most screens show
SHARP_SIDE = 300  # pixels of the longer side that a picture of the first page should have
UNKNOWN_SIDES = {"width": 1, "height": 1}
KEYS = "Arrow keys move from picture to picture, Enter opens one, Space selects it, Delete deletes what is selected."
WRONG = Answer("To a person: the page, which says what is wrong.", PAGE)


def _given(text: object) -> object:
    """A field of a form that was left empty is sent all the same."""
    return None if text == "" else text


Text = Annotated[str | None, BeforeValidator(_given)]
Day = Annotated[date | None, Field(le=date.max - timedelta(days=1)), BeforeValidator(_given)]


class PictureQuery(StrictQuery):
    """The filters of the page, as its form sends them."""

    bucket: Annotated[Text, Field(description="Only pictures of this bucket.")] = None
    user: Annotated[Text, Field(description="Only pictures of this user of `org`.")] = None
    org: Annotated[Text, Field(description="Only pictures of this organisation.")] = None
    status: Annotated[Text, Field(description="Only pictures whose job has this status.")] = None
    q: Annotated[Text, Field(description="The beginning of the file name.")] = None
    since: Annotated[Day, Field(alias="from", description="The first day, in UTC.")] = None
    until: Annotated[Day, Field(alias="to", description="The last day, in UTC.")] = None
    after: Annotated[Text, Field(description="The cursor of a further page, for browsers without scripts.")] = None

    @property
    def filters(self) -> dict[str, str]:
        """As GET /api/v1/operator/images takes them."""
        given = {name: getattr(self, name) for name in ("bucket", "user", "org", "status", "q")}
        given["created_after"] = self.since and _midnight(self.since)
        given["created_before"] = self.until and _midnight(self.until + timedelta(days=1))
        return {name: value for name, value in given.items() if value}

    @property
    def sent(self) -> dict[str, str]:
        """As in the address, but for the cursor."""
        given = self.model_dump(by_alias=True, exclude={"after"}, exclude_none=True)
        return {name: str(value) for name, value in given.items()}


def _midnight(day: date) -> str:
    return as_text(datetime(day.year, day.month, day.day, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Found:
    """The pictures of a page, the cursor of the next one, and the filters as the API takes them."""

    jobs: list[Job]
    next: str | None
    filters: dict[str, str]


@operation(
    "dashboard_images_page",
    "operator",
    "The pictures",
    access="operator",
    query=PictureQuery,
    answers={**PAGES, 422: WRONG},
    errors=("overloaded",),
)
@operators_page
async def images(request: Request) -> Response:
    """Those of all users, newest first. Never public. Without a session the answer is the sign-in page."""
    try:
        query = parsed(request, PictureQuery)
        return await _shown(request, query, await _found(request, query))
    except Problem as refusal:
        if refusal.status != 422 or not auth.wants_page(request):
            raise
        return await _shown(request, PictureQuery(), Found([], None, {}), refusal)


async def _found(request: Request, query: PictureQuery) -> Found:
    """Raises Problem (422)."""
    try:
        filters = query.filters
        listing = OperatorQuery.model_validate({**filters, "after": query.after, "limit": FIRST_PAGE})
    except ValidationError as error:
        raise invalid(error, "query") from None
    wanted = wanted_by(listing)
    found = await page_of(request, listing, wanted, READER)
    return Found(found.jobs, next_of(request, found, wanted, READER), filters)


async def _shown(request: Request, query: PictureQuery, found: Found, problem: Problem | None = None) -> Response:
    return await page(
        request,
        "Pictures",
        el("h1", "Pictures", tabindex="-1"),
        _filters(request, query),
        el("p", _words(problem) if problem else None, id="problem", class_="problem", role="alert"),
        _selection(),
        _grid(request, query, found, listed=problem is None),
        el("ul", id="deletions", aria_label="Deletions that can be undone"),
        _lightbox(),
        here="images",
        scripts=("pictures.js",),
        styles=("pictures.css",),
        status=problem.status if problem else 200,
        body_class="wide",
    )


def _words(problem: Problem) -> str:
    return f"{problem.detail}: {problem.more['reason']}" if "reason" in problem.more else problem.detail


def _filters(request: Request, query: PictureQuery) -> Html:
    """The form, with what was asked for. It is sent as an address, so that "back" leads to the filters before."""
    address = f"{root_of(request)}/dashboard/images"
    since, until = (day.isoformat() if day else "" for day in (query.since, query.until))
    more = (
        text_field("bucket", "Bucket", query.bucket or ""),
        text_field("user", "User", query.user or ""),
        text_field("org", "Organisation", query.org or ""),
        text_field("from", "From day (UTC)", since, type="date"),
        text_field("to", "To day (UTC)", until, type="date"),
    )
    fields = (
        text_field("q", "Name begins with", query.q or ""),
        choice("status", "State", (("", "any"), *((name, name) for name in STATUSES)), query.status or ""),
        el("details", el("summary", "More filters"), el("div", more), open=bool(query.sent.keys() - {"q", "status"})),
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


def _grid(request: Request, query: PictureQuery, found: Found, *, listed: bool) -> Html:
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
        el("div", _first(request, query, found) if listed else None, id="first"),
        el("p", id="end", class_="muted", role="status"),
        el("button", "Try again", type="button", id="again", data_action="again", hidden=True),
        id="pictures",
        data_page=json.dumps(data, ensure_ascii=False, separators=(",", ":")),
    )


def _first(request: Request, query: PictureQuery, found: Found) -> tuple[Html, ...]:
    """The pictures as they are seen until the script has laid them out, and without a script."""
    if not found.jobs and found.next is None:
        return (empty("No picture matches."),)
    shown = el("ul", [_picture(request, job) for job in found.jobs])
    further = pager(f"{root_of(request)}/dashboard/images", query.sent, found.next, first=query.after is None)
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
