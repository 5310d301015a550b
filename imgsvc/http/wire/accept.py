"""What a client accepts, by the Accept header (RFC 9110 section 12.5.1): a page or JSON, one format or another."""

from starlette.requests import Request


def prefers_page(request: Request) -> bool:
    """Whether the client lists HTML and prefers it to JSON, as browsers do. `*/*` alone gets JSON."""
    weights = ranks(request.headers.get("Accept", ""))
    html = weights.get("text/html", 0.0)
    wildcard = weights.get("*/*", 0.0)
    if "application/json" in weights:
        return html > weights["application/json"]
    return html > 0 and html >= wildcard


def ranks(accept: str) -> dict[str, float]:
    """{media type: weight}; a malformed weight counts as 0."""
    ranks: dict[str, float] = {}
    for item in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in item.split(";"))
        weights = [part[2:] for part in parameters if part.startswith("q=")]
        try:
            ranks[media_type] = float(weights[0]) if weights else 1.0
        except ValueError:
            ranks[media_type] = 0.0
    return ranks
