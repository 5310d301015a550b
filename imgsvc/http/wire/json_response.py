"""JSON responses. They are made from pydantic models only, so that the API document can be built from these."""

from collections.abc import Mapping

from pydantic import BaseModel
from starlette.responses import Response

from .problems import NO_STORE


def json_response(model: BaseModel, status: int = 200, headers: Mapping[str, str] = NO_STORE) -> Response:
    return Response(model.model_dump_json(by_alias=True), status, dict(headers), media_type="application/json")
