"""The operator's sign-in and sign-out, and an upload token for the dashboard."""

from datetime import timedelta
from typing import Annotated

import structlog
from pydantic import BaseModel, ConfigDict, Field, RootModel
from starlette.requests import Request
from starlette.responses import Response

from ...access.permissions import READ, UPLOAD
from ...jobs.answer_model import COMPLETED, example
from ...jobs.table.model import as_text, now
from ..openapi.operations import Answer, operation
from ..state import state_of
from ..wire.json_body import json_body
from ..wire.json_response import json_response
from ..wire.problems import NO_STORE
from . import auth

log = structlog.get_logger()

UPLOAD_USER = "operator"
UPLOAD_TOKEN_SECONDS = 600
UPLOAD_PERMISSIONS = (UPLOAD, READ)  # required in the mode `claims`
Secret = Annotated[str, Field(min_length=1, max_length=1024)]


class TokenLogin(BaseModel):
    """Sign in with the operator's token."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    token: Secret


class CodeLogin(BaseModel):
    """Sign in with a one-use code, valid for ten minutes."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    code: Secret


class Login(RootModel[TokenLogin | CodeLogin]):
    """Either of the two."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "1772366400000.…"}]})


class UploadToken(BaseModel):
    """A JWT for the public API. `expires_in` is in seconds."""

    model_config = example(
        token="eyJhbGciOiJIUzI1NiJ9.…",  # noqa: S106
        sub=UPLOAD_USER,
        expires_at=COMPLETED,
        expires_in=600,
    )

    token: str
    sub: str
    expires_at: str
    expires_in: int


@operation(
    "operator_login",
    "operator",
    "Sign in",
    body=Login,
    answers={204: Answer("A session, in a cookie.", None, ("Set-Cookie",))},
    errors=("operator_refused", "operator_attempts", "cross_site", "upload_stalled"),
)
async def login(request: Request) -> Response:
    """With the operator token, or with the one-use code of the link that `imgsvc dashboard` prints."""
    auth.refuse_elsewhere(request)
    given = (await json_body(request, Login)).root
    if isinstance(given, CodeLogin):
        await auth.checked(request, given.code, code=True)
    else:
        await auth.checked(request, given.token)
    operators = state_of(request).access.operators
    session = operators.open_session()
    log.info("operator_signed_in", client=request.client.host if request.client else "")
    response = Response(status_code=204, headers=NO_STORE)
    _set_cookie(request, response, session, int(operators.session_seconds))
    return response


@operation(
    "operator_logout",
    "operator",
    "Sign out",
    answers={204: Answer("The session has ended.", None, ("Set-Cookie",))},
    errors=("cross_site",),
)
async def logout(request: Request) -> Response:
    auth.refuse_elsewhere(request)
    state_of(request).access.operators.close_session(request.cookies.get(auth.COOKIE, ""))
    response = Response(status_code=204, headers=NO_STORE)
    _set_cookie(request, response, "", 0)
    return response


@operation(
    "operator_upload_token",
    "operator",
    "A short-lived token for uploads",
    access="operator_acting",
    answers={200: UploadToken},
    errors=("tokens_not_ours",),
)
async def upload_token(request: Request) -> Response:
    """The dashboard uses it to upload like any other client."""
    await auth.require_operator(request)
    expires_at = now() + timedelta(seconds=UPLOAD_TOKEN_SECONDS)
    tokens = state_of(request).access.tokens
    token = tokens.issue(UPLOAD_USER, permissions=UPLOAD_PERMISSIONS, ttl_seconds=UPLOAD_TOKEN_SECONDS)
    return json_response(
        UploadToken(token=token, sub=UPLOAD_USER, expires_at=as_text(expires_at), expires_in=UPLOAD_TOKEN_SECONDS)
    )


def _set_cookie(request: Request, response: Response, session: str, seconds: int) -> None:
    """HttpOnly: scripts can't read it. Strict: it is not sent with requests that another site starts (RFC 6265bis)."""
    secure = request.url.scheme == "https" or str(request.app.state.public_url).startswith("https:")
    response.set_cookie(
        auth.COOKIE, session, max_age=seconds, path="/", secure=secure, httponly=True, samesite="strict"
    )
