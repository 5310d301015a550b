"""Small JSON bodies, validated with the model that their operation declares."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from ..state import state_of
from .body_rate import MinimumBodyRate, SlowClient
from .content_encoding import check_encoding
from .drain import NO_DRAIN
from .multipart import body_chunks
from .problems import validation
from .validation import invalid

MAX_BYTES = 8 * 1024
T = TypeVar("T", bound=BaseModel)


async def json_body(request: Request, model: type[T], max_bytes: int = MAX_BYTES) -> T:
    """The body as `model`. Raises Problem (415, 422), SlowClient or ClientDisconnect."""
    declared = request.scope["imgsvc.operation"]
    kinds = [body.media_type for body in declared.bodies if body.model is model]
    assert kinds, f"{declared.name} does not declare {model.__name__}"
    kind = request.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if kind not in kinds:
        raise validation((("header", "content-type"), f"must be {' or '.join(kinds)}", "content_type"))
    check_encoding(request)
    uploads, text = state_of(request).settings.uploads, bytearray()
    pace = MinimumBodyRate(uploads.idle_timeout_seconds, uploads.min_bytes_per_second)
    try:
        with pace.watching():
            async for chunk in body_chunks(request.receive, pace):
                text += chunk
                if len(text) > max_bytes:
                    raise validation((("body",), f"must be at most {max_bytes} bytes", "too_long"))
    except SlowClient:
        request.scope[NO_DRAIN] = True
        raise
    try:
        return model.model_validate_json(bytes(text))
    except ValidationError as error:
        raise invalid(error, "body") from None
