"""The request headers that select bytes of a variant."""

from typing import Annotated, Any

from pydantic import Field

from .validation import Headers


def _named(name: str, words: str) -> Any:
    return Field(alias=name, description=words)


class ByteHeaders(Headers):
    """Conditional and range headers. A malformed value is ignored, as RFC 9110 requires."""

    match: Annotated[str | None, _named("If-Match", "Send it only if its ETag is one of these (else 412).")] = None
    none_match: Annotated[str | None, _named("If-None-Match", "Do not send it if its ETag is one of these (304).")] = (
        None
    )
    modified_since: Annotated[str | None, _named("If-Modified-Since", "Send it only if it is newer (else 304).")] = None
    unmodified_since: Annotated[str | None, _named("If-Unmodified-Since", "Do not send it if it is newer (412).")] = (
        None
    )
    range: Annotated[str | None, _named("Range", "One range of bytes.")] = None
    if_range: Annotated[str | None, _named("If-Range", "Send the range only if this ETag or date still matches.")] = (
        None
    )
