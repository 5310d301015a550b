"""JSON answers: made from pydantic models only, so that the API document can be made from the same."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from .problems import NO_STORE

# Of the examples.
JOB_ID = "0f6f2f4e-7b0f-4f61-9a5e-2f6d2f3e1c11"
IMAGE_ID = "9a41d1de-52c3-4c53-8bb5-1f0a7f6f0f9e"
CREATED, STARTED, COMPLETED = (f"2026-03-01T12:00:0{second}.000000+00:00" for second in range(3))


def shown(**example: Any) -> ConfigDict:
    """What the API document shows of a model; a test holds it against the model itself."""
    return ConfigDict(json_schema_extra={"examples": [example]})


def json_response(model: BaseModel, status: int = 200, headers: Mapping[str, str] = NO_STORE) -> Response:
    return Response(model.model_dump_json(by_alias=True), status, dict(headers), media_type="application/json")
