"""What a client accepts, by the Accept header (RFC 9110 section 12.5.1): a page or JSON, one format or another."""

import re

from starlette.requests import Request

WEIGHT = re.compile(r"0(\.[0-9]*)?|1(\.0*)?")  # of more digits than RFC 9110 section 12.4.2 allows, too


def prefers_page(request: Request) -> bool:
    """Whether the client lists HTML and prefers it to JSON, as browsers do. `*/*` alone gets JSON."""
    weights = ranks(accepted(request))
    html = weights.get("text/html", 0.0)
    wildcard = weights.get("*/*", 0.0)
    if "application/json" in weights:
        return html > weights["application/json"]
    return html > 0 and html >= wildcard


def accepted(request: Request) -> str:
    """The Accept header; one that is sent in several lines is one list (RFC 9110 section 5.3)."""
    return ",".join(request.headers.getlist("Accept"))


def ranks(accept: str) -> dict[str, float]:
    """{media type: weight}; a malformed weight counts as 0."""
    ranks: dict[str, float] = {}
    for item in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in item.split(";"))
        weights = [part[2:] for part in parameters if part.startswith("q=")]
        if not weights:
            ranks[media_type] = 1.0
        else:
            ranks[media_type] = float(weights[0]) if WEIGHT.fullmatch(weights[0]) else 0.0
    return ranks
