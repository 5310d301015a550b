"""The operator's sign-in, sign-out and sessions, and an upload token for the dashboard."""

from datetime import timedelta
from typing import Annotated, Literal, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, RootModel
from starlette.requests import Request
from starlette.responses import Response

from ...access.permissions import READ, UPLOAD
from ...jobs.answer_model import COMPLETED, CREATED, AnswerModel, example
from ...jobs.table.model import as_text, now
from ...jobs.table.session_rows import OperatorSession
from ..openapi.operations import Answer, by_method, operation
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

    model_config = ConfigDict(defer_build=True, extra="forbid", hide_input_in_errors=True)

    token: Secret


class CodeLogin(BaseModel):
    """Sign in with a one-use code, valid for ten minutes."""

    model_config = ConfigDict(defer_build=True, extra="forbid", hide_input_in_errors=True)

    code: Secret


class Login(RootModel[TokenLogin | CodeLogin]):
    """Either of the two."""

    model_config = ConfigDict(defer_build=True, json_schema_extra={"examples": [{"code": "1772366400000.…"}]})


class OpenSession(AnswerModel):
    """`subject` is the person's `sub` at the sign-on provider; null: signed in with the operator token."""

    subject: str | None
    opened_at: str
    expires_at: str

    @classmethod
    def of(cls, session: OperatorSession) -> Self:
        return cls(
            subject=session.subject, opened_at=as_text(session.opened_at), expires_at=as_text(session.expires_at)
        )


class Sessions(AnswerModel):
    """The operator's open sessions in browsers."""

    model_config = example(sessions=[{"subject": None, "opened_at": CREATED, "expires_at": COMPLETED}])

    sessions: list[OpenSession]


class Revoked(AnswerModel):
    """How many sessions were ended."""

    model_config = example(ended=2)

    ended: int


class UploadToken(AnswerModel):
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
    response = Response(status_code=204, headers=NO_STORE)
    await sign_in(request, response)
    return response


@operation(
    "operator_logout",
    "operator",
    "Sign out",
    answers={204: Answer("The session has ended.", None, ("Set-Cookie",))},
    errors=("cross_site", "overloaded"),
)
async def logout(request: Request) -> Response:
    auth.refuse_elsewhere(request)
    await state_of(request).access.sessions.close(request.cookies.get(auth.COOKIE, ""))
    response = Response(status_code=204, headers=NO_STORE)
    set_cookie(request, response, auth.COOKIE, "", 0)
    return response


@operation(
    "operator_sessions_list",
    "operator",
    "Open sessions",
    access="operator",
    answers={200: Sessions},
)
async def sessions(request: Request) -> Response:
    """Who is signed in to the dashboard, the latest first."""
    await auth.require_reader(request)
    found = sorted(state_of(request).access.sessions.open_ones(), key=lambda one: one.opened_at, reverse=True)
    return json_response(Sessions(sessions=[OpenSession.of(one) for one in found]))


@operation(
    "operator_sessions_revoke",
    "operator",
    "End all sessions",
    access="operator_acting",
    answers={200: Revoked},
    errors=("overloaded",),
)
async def revoke(request: Request) -> Response:
    """Everyone has to sign in again, the caller's browser too. Programs that send the token are not affected."""
    way = await auth.require_operator(request)
    ended = await state_of(request).access.sessions.close_all()
    log.info("operator_sessions_revoked", ended=ended, by=way)
    return json_response(Revoked(ended=ended))


every_session = by_method(GET=sessions, DELETE=revoke)


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


async def sign_in(request: Request, response: Response, subject: str | None = None) -> None:
    """Open a session and put its cookie into the response. `subject`: the person of single sign-on."""
    sessions = state_of(request).access.sessions
    cookie = await sessions.open(subject)
    log.info("operator_signed_in", client=request.client.host if request.client else "", subject=subject)
    set_cookie(request, response, auth.COOKIE, cookie, int(sessions.seconds))


def set_cookie(
    request: Request,
    response: Response,
    name: str,
    value: str,
    seconds: int,
    *,
    same_site: Literal["strict", "lax"] = "strict",
) -> None:
    """HttpOnly: scripts can't read it. Strict: it is not sent with requests that another site starts (RFC 6265bis)."""
    secure = request.url.scheme == "https" or str(request.app.state.public_url).startswith("https:")
    response.set_cookie(name, value, max_age=seconds, path="/", secure=secure, httponly=True, samesite=same_site)
