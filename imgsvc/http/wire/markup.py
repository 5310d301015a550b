"""Ready HTML for an image: `srcset` and `sizes` (HTML Living Standard, section 4.8.4), `<img>` and `<picture>`."""

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from typing_extensions import TypedDict

from ...jobs.answer_model import IMAGE_ID, THUMBHASH
from ...jobs.table.model import Job
from .image_metadata import placeholders

FALLBACK = "medium"  # the variant of `src`, which browsers take that know no `srcset`
FOR_PAGES = "webp"  # the format that `<img>` offers: other variants are for mail clients and printers
# Formats of `<source>` beside it, the smallest files first: a browser takes the first one that it knows.
FURTHER_FORMATS = ("avif",)
MOST_ALT = 1_000  # characters


class Markup(TypedDict):
    """`srcset` and `sizes` as they are; `img` and `picture` are HTML, in which everything is escaped.

    `alt` is the client's metadata `alt`, if that is a text. `sizes` says that the picture is as wide as the window, up
    to its own width; a browser that loads it lazily takes its true width instead.
    """

    srcset: str
    sizes: str
    img: str
    picture: str


class Candidate(NamedTuple):
    """A variant for a page, with its width and height in pixels."""

    name: str
    url: str
    width: int
    height: int


def markup(job: Job, urls: Mapping[str, str], formats: Mapping[str, Mapping[str, str]] | None = None) -> Markup:
    """Of an image that has a variant. `formats`: {format: {variant: URL}} of what there is beside `urls`."""
    crops = {variant.name for variant in job.recipe.crops}
    offered = _offered(job, urls, crops)
    largest, srcset = offered[-1], _srcset(offered)
    sizes = f"auto, (max-width: {largest.width}px) 100vw, {largest.width}px"
    source = next((one for one in offered if one.name == FALLBACK), largest)
    img = _tag("img", _img(job, source.url, srcset, sizes, largest))
    sources = [
        _tag("source", {"type": f"image/{form}", "srcset": _srcset(found), "sizes": sizes})
        for form in FURTHER_FORMATS
        if (found := [one for one in _candidates(job, (formats or {}).get(form, {})) if one.name not in crops])
    ]
    return {
        "srcset": srcset,
        "sizes": sizes,
        "img": img,
        "picture": f"<picture>{''.join(sources)}{img}</picture>",
    }


def _offered(job: Job, urls: Mapping[str, str], crops: Collection[str]) -> list[Candidate]:
    """The variants that a browser may choose from, the narrowest first: they show the same, each in another width.

    Without any, one variant alone: the largest in another format, or the largest crop.
    """
    whole = {name: url for name, url in urls.items() if name not in crops}
    usual = {name: url for name, url in whole.items() if job.stored(name).format == FOR_PAGES}
    return _candidates(job, usual) or _candidates(job, whole or urls)[-1:]


def _candidates(job: Job, urls: Mapping[str, str]) -> list[Candidate]:
    """One for each width. Of a small picture several variants have the same: one of them is enough."""
    made = job.measured["variants"]
    found: dict[int, Candidate] = {}
    for name, url in urls.items():
        width, height = made[name]["width"], made[name]["height"]
        if width not in found or name == FALLBACK:
            found[width] = Candidate(name, url, width, height)
    return [found[width] for width in sorted(found)]


def _srcset(offered: Sequence[Candidate]) -> str:
    # A comma or a blank in a URL would end it there.
    return ", ".join(f"{one.url.replace(' ', '%20').replace(',', '%2C')} {one.width}w" for one in offered)


def _img(job: Job, source: str, srcset: str, sizes: str, largest: Candidate) -> dict[str, str | int]:
    alt, shown = job.client_metadata.get("alt"), placeholders(job)
    colour = f";background:{shown['dominant_color']}" if shown["dominant_color"] else ""
    attributes: dict[str, str | int] = {
        "src": source,
        "srcset": srcset,
        "sizes": sizes,
        "width": largest.width,
        "height": largest.height,
        "alt": alt[:MOST_ALT] if isinstance(alt, str) else "",
        "loading": "lazy",
        "decoding": "async",
        "style": f"max-width:100%;height:auto{colour}",
    }
    if shown["thumbhash"]:
        attributes["data-thumbhash"] = shown["thumbhash"]
    return attributes


def _tag(name: str, attributes: Mapping[str, str | int]) -> str:
    written = " ".join(
        f'{key}="{value if isinstance(value, int) else escape(value)}"' for key, value in attributes.items()
    )
    return f"<{name} {written}>"


def _example() -> dict[str, Any]:
    base = f"/storage/holiday/processed/{{0}}/{IMAGE_ID}_{{0}}.webp"
    srcset = ", ".join(f"{base.format(name)} {width}w" for name, width in (("thumbnail", 150), ("medium", 600)))
    sizes = "auto, (max-width: 600px) 100vw, 600px"
    img = (
        f'<img src="{base.format("medium")}" srcset="{srcset}" sizes="{sizes}" width="600" height="400" alt="" '
        f'loading="lazy" decoding="async" style="max-width:100%;height:auto;background:#4a7fa5" '
        f'data-thumbhash="{THUMBHASH}">'
    )
    return {"srcset": srcset, "sizes": sizes, "img": img, "picture": f"<picture>{img}</picture>"}


EXAMPLE = _example()
