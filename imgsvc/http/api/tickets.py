"""Upload tickets: an application lets another program, such as a browser, upload as itself, once or a few times."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt
from starlette.requests import Request
from starlette.responses import Response

from ...access.token_limits import TokenLimits
from ...jobs.answer_model import COMPLETED, AnswerModel, example
from ...jobs.table.credentials import NewTicket, TicketExpired, TicketSpent, UploadTicket
from ...settings.fields import INTEGRAL
from ..openapi.operations import BYTES, PHOTO, Answer, Body, operation
from ..state import state_of
from ..wire.bearer import authenticated
from ..wire.json_body import json_body
from ..wire.json_response import json_response
from ..wire.moments import LONGEST_SECONDS, SHORTEST_SECONDS
from ..wire.problems import NO_STORE, not_authenticated
from ..wire.upload_fields import METADATA_BYTES, Bucket, TicketForm, UploadHeaders, UploadQuery, checked_metadata
from .uploads import ANSWERS, REFUSALS, Uploader, receive, require_upload

MAX_UPLOADS = 1000
LONGEST_TICKET_SECONDS = 7 * 86_400
TICKET = "imgt_…"


class TicketRequest(BaseModel):
    """What the ticket is for. `expires_in` is its own life in seconds, `expires_after` that of each image."""

    model_config = ConfigDict(
        defer_build=True,
        extra="forbid",
        json_schema_extra={"examples": [{"bucket": "holiday", "uploads": 1, "max_bytes": 5_000_000}]},
    )

    bucket: Bucket
    uploads: Annotated[
        StrictInt, Field(ge=1, le=MAX_UPLOADS, description="How many uploads it is good for."), INTEGRAL
    ] = 1
    max_bytes: Annotated[
        StrictInt | None, Field(ge=1, description="The largest file; the service's limit holds too."), INTEGRAL
    ] = None
    allowed_types: Annotated[
        list[Annotated[str, Field(max_length=100)]] | None,
        Field(min_length=1, max_length=10, description="Of the types that the service accepts."),
    ] = None
    expires_in: Annotated[
        StrictInt, Field(ge=1, le=LONGEST_TICKET_SECONDS, description="Seconds until the ticket ends."), INTEGRAL
    ] = 600
    metadata: Annotated[
        dict[str, Any], Field(description="Of each image; wins over the upload's own metadata, member by member.")
    ] = {}
    expires_after: Annotated[
        StrictInt | None,
        Field(
            ge=SHORTEST_SECONDS,
            le=LONGEST_SECONDS,
            description="Seconds until each image expires, from its acceptance; the upload can't say otherwise.",
        ),
        INTEGRAL,
    ] = None

    @property
    def limits(self) -> TokenLimits:
        given = {"max_bytes": self.max_bytes, "allowed_types": self.allowed_types, "buckets": [self.bucket]}
        return TokenLimits.model_validate({name: value for name, value in given.items() if value is not None})


class IssuedTicket(AnswerModel):
    """`upload_url` holds the ticket: anyone who has it can upload."""

    model_config = example(ticket=TICKET, upload_url=f"/api/v1/images/tickets/{TICKET}", expires_at=COMPLETED)

    ticket: str
    upload_url: str
    expires_at: str


@operation(
    "tickets_issue",
    "uploads",
    "Issue an upload ticket",
    access="bearer",
    body=TicketRequest,
    answers={201: Answer("The ticket, which is shown this once.", IssuedTicket)},
    errors=("permission_denied", "bucket_not_allowed", "being_erased", "overloaded"),
)
async def issue(request: Request) -> Response:
    """For who may upload. Uploads with it are the issuer's: they count for its quotas, and its limits of now hold."""
    who = await authenticated(request)
    await require_upload(request, who)
    wanted = await json_body(request, TicketRequest, 2 * METADATA_BYTES)
    state = state_of(request)
    state.intake.allowance.tightened(who.tightening).check_bucket(wanted.bucket)
    new = NewTicket(
        issuer=who,
        bucket=wanted.bucket,
        narrower=who.tightening.narrowed(wanted.limits),
        metadata=checked_metadata(wanted.metadata),
        expires_after=wanted.expires_after,
        uploads=wanted.uploads,
        seconds=wanted.expires_in,
    )
    secret, ticket = await state.access.credentials.issue_ticket(new)
    state.telemetry.metrics.access.ticket("issued")
    url = f"{request.app.state.public_url}/api/v1/images/tickets/{secret}"
    return json_response(IssuedTicket(ticket=secret, upload_url=url, expires_at=ticket.expires_at), 201, NO_STORE)


@operation(
    "tickets_upload",
    "uploads",
    "Upload a photo with a ticket",
    access="ticket",
    query=UploadQuery,
    headers=UploadHeaders,
    body=(
        Body("multipart/form-data", TicketForm),
        Body(BYTES, PHOTO),
    ),
    answers=ANSWERS,
    errors=REFUSALS,
)
async def upload(request: Request) -> Response:
    """Needs no other credential: the address holds the ticket. A refused upload leaves the ticket as it was. Repeated
    with its Idempotency-Key it gets the first answer again, though the ticket is spent or over.
    """
    return await receive(request, _uploader)


async def _uploader(request: Request) -> Uploader:
    """Who uploads with the ticket. Raises Problem (401)."""
    state = state_of(request)
    ticket = await state.access.credentials.ticket(str(request.path_params["ticket"]))
    if ticket is None:
        state.telemetry.metrics.access.ticket("refused")
        raise not_authenticated("token_invalid")
    who = Uploader(ticket.identity, ticket)
    try:
        ticket.check()
    except (TicketExpired, TicketSpent):
        if not await _is_repeated(request, ticket):
            state.telemetry.metrics.access.ticket("refused")
            raise
    return who


async def _is_repeated(request: Request, ticket: UploadTicket) -> bool:
    """Whether this ticket's upload with the same Idempotency-Key was accepted before."""
    key = Uploader(ticket.identity, ticket).key(request.headers.get("Idempotency-Key"))
    return key is not None and await state_of(request).jobs.table.has_key(ticket.org_id, ticket.user_id, key)
