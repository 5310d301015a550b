"""JSON responses. They are made from pydantic models only, so that the API document can be built from these."""

from collections.abc import Mapping

from pydantic import BaseModel
from starlette.responses import Response

from .problems import NO_STORE


def json_response(
    model: BaseModel, status: int = 200, headers: Mapping[str, str] = NO_STORE, *, only_set: bool = False
) -> Response:
    """`only_set`: leave out the members that were not given a value."""
    body = model.model_dump_json(by_alias=True, exclude_unset=only_set)
    return Response(body, status, dict(headers), media_type="application/json")
