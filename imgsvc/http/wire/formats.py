"""Which file of a variant is sent: its own format, a further one, or the one that the Accept header allows."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request

from ...jobs.table.model import Job
from .accept import accepted, ranks

AUTO = "auto"
ASKED = Literal["auto", "webp", "avif", "jpeg"]
NEGOTIATED = "imgsvc.negotiated"  # in the scope: the response depends on Accept

FormatName = Annotated[
    ASKED | None,
    Field(
        description="Without it, the variant in its own format; avif: the same in AVIF, where `[images] formats` has "
        "it; auto: the smallest file of those that Accept names, with `Vary: Accept`."
    ),
]
Formats = Annotated[
    dict[str, dict[str, str]],
    Field(description="The URLs of variants in further formats: {format: {variant: URL}}."),
]


def names_of(job: Job, size: str) -> dict[str, str]:
    """{format: variant} of a variant that is ready, its own format first."""
    further = {form: names[size] for form, names in job.formats.items() if size in names}
    return {job.stored(size).format: size, **further}


def will_have(job: Job, size: str, form: str) -> bool:
    """Whether the recipe names this variant in this further format."""
    return any((one.size, one.format) == (size, form) for one in job.recipe.further)


def negotiated(request: Request, job: Job, size: str) -> str:
    """The variant of the format that the client likes best; of formats that it likes as well, of the smallest file.

    A further format is sent only to a client that names it: `*/*` and `image/*` say old browsers too. The own format is
    sent even to a client that does not accept it (RFC 9110 section 12.5.1 allows that).
    """
    sent = ranks(accepted(request))
    own, *further = names_of(job, size).items()
    weights: dict[str, float] = {own[1]: max(_named(sent, own[0], ("image/*", "*/*")), 0.0)}
    weights |= {name: weight for form, name in further if (weight := _named(sent, form)) > 0}
    return max(weights, key=lambda name: (weights[name], -job.stored(name).size_bytes))


def _named(sent: dict[str, float], form: str, wider: Iterable[str] = ()) -> float:
    return next((sent[one] for one in (f"image/{form}", *wider) if one in sent), 0.0)


def mark_negotiated(request: Request) -> None:
    """With `format=auto`, whatever is answered, an error too, says `Vary: Accept`."""
    if AUTO in request.query_params.getlist("format"):
        request.scope[NEGOTIATED] = True


def varied(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers with Accept in Vary."""
    names = [value for name, value in headers if name == b"vary"]
    return [*(one for one in headers if one[0] != b"vary"), (b"vary", b", ".join([*names, b"Accept"]))]
