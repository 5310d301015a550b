"""JSON responses. They are made from pydantic models only, so that the API document can be built from these."""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel
from starlette.responses import Response

from .problems import NO_STORE

RAW_NO_STORE = [(name.lower().encode(), value.encode()) for name, value in NO_STORE.items()]
JSON = (b"content-type", b"application/json")


def json_response(
    model: BaseModel, status: int = 200, headers: Mapping[str, str] = NO_STORE, *, only_set: bool = False
) -> Response:
    """`only_set`: leave out the members that were not given a value."""
    body = model.model_dump_json(by_alias=True, exclude_unset=only_set)
    if headers is NO_STORE:
        return _Uncached(body, status)
    return Response(body, status, dict(headers), media_type="application/json")


def json_list_response(model: BaseModel, entries: Sequence[bytes]) -> Response:
    """A model whose first member is an empty list, with these entries in it: JSON that was made from models before."""
    body = model.model_dump_json(by_alias=True).encode()
    return _Uncached(body.replace(b"[]", b"[%b]" % b",".join(entries), 1))


def ready_json_response(text: bytes) -> Response:
    """JSON that was made from a model before."""
    return _Uncached(text)


class _Uncached(Response):
    """The usual one: its headers are encoded once and not for each response."""

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:  # noqa: ARG002
        self.raw_headers = [*RAW_NO_STORE, (b"content-length", str(len(self.body)).encode()), JSON]
