"""Webhooks as JSON, for the operator: by the API and by the command line."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import AwareDatetime, ConfigDict, Field

from .answer_model import COMPLETED, CREATED, IMAGE_ID, AnswerModel, example
from .table.webhook_table import EndpointState, State, WebhookTable

MAX_LOGGED = 200

ENDPOINT = {
    "name": "app",
    "configured": True,
    "waiting": 0,
    "oldest_waiting_since": None,
    "switched_off_at": None,
    "overflowed_at": None,
}
ATTEMPT = {
    "webhook_id": "msg_5f0c1d8e1a2b4c3d9e8f7a6b5c4d3e2f",
    "event": "image.completed",
    "image_id": IMAGE_ID,
    "state": "delivered",
    "attempt": 1,
    "started_at": COMPLETED,
    "status": 204,
    "reason": None,
    "milliseconds": 38,
    "next_attempt_at": None,
}


class WebhookEndpoint(AnswerModel):
    """An endpoint of the settings, or a former one for which something waits.

    `switched_off_at`: it answered 410. `overflowed_at`: the last time that the oldest of too many was given up.
    """

    model_config = example(**ENDPOINT)

    name: str
    configured: bool
    waiting: int
    oldest_waiting_since: str | None
    switched_off_at: str | None
    overflowed_at: str | None

    @classmethod
    def of(cls, state: EndpointState) -> Self:
        return cls(
            name=state.name,
            configured=state.configured,
            waiting=state.waiting,
            oldest_waiting_since=state.oldest,
            switched_off_at=state.switched_off_at,
            overflowed_at=state.overflowed_at,
        )


class WebhookEndpoints(AnswerModel):
    """The endpoints, by name."""

    model_config = example(webhooks=[ENDPOINT])

    webhooks: list[WebhookEndpoint]


class WebhookAttempt(AnswerModel):
    """One request. `status` is that of the answer; without one, `reason` says why."""

    model_config = example(**ATTEMPT)

    webhook_id: str | None
    event: str | None
    image_id: str | None
    state: State | None
    attempt: int
    started_at: str
    status: int | None
    reason: str | None
    milliseconds: int
    next_attempt_at: str | None


class WebhookLog(AnswerModel):
    """The latest attempts, newest first. They are kept for 30 days."""

    model_config = example(attempts=[ATTEMPT])

    attempts: list[WebhookAttempt]


class ReplayRequest(AnswerModel):
    """Which deliveries are sent again: those that were given up or are held, and with `delivered` the delivered too."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"since": CREATED, "delivered": False, "image_id": None}]},
    )

    since: Annotated[AwareDatetime | None, Field(description="Only events from this moment on (RFC 3339).")] = None
    image_id: Annotated[str | None, Field(description="Only events of this image.", max_length=64)] = None
    delivered: Annotated[bool, Field(description="Also those that were delivered.")] = False


class Replayed(AnswerModel):
    """The number of deliveries that wait again."""

    model_config = example(replayed=3)

    replayed: int


class Enabled(AnswerModel):
    """`was_off` is false if it was not switched off."""

    model_config = example(name="app", was_off=True)

    name: str
    was_off: bool


class Tested(AnswerModel):
    """What a `webhook.test` gave: `ok` for a status of 200 to 299; without an answer, `reason` says why."""

    model_config = example(ok=True, status=204, reason=None, milliseconds=38)

    ok: bool
    status: int | None
    reason: str | None
    milliseconds: int


class NoSuchWebhook(Exception):
    """Neither the settings nor the table know the name."""


async def listed(table: WebhookTable) -> WebhookEndpoints:
    found = (await table.endpoints()).values()
    return WebhookEndpoints(webhooks=[WebhookEndpoint.of(one) for one in found if one.configured or one.waiting])


async def logged(table: WebhookTable, name: str, limit: int) -> WebhookLog:
    """Raises NoSuchWebhook."""
    await require(table, name)
    attempts = []
    for row in await table.log(name, limit):
        following = row["next_attempt_at"] if row["state"] == "waiting" else None
        attempts.append(
            WebhookAttempt(
                webhook_id=row["message_id"],
                event=row["event_type"],
                image_id=row["image_id"],
                state=row["state"],
                attempt=row["attempt"],
                started_at=row["started_at"],
                status=row["status"],
                reason=row["reason"],
                milliseconds=row["milliseconds"],
                next_attempt_at=following,
            )
        )
    return WebhookLog(attempts=attempts)


async def replay(table: WebhookTable, name: str, wanted: ReplayRequest) -> Replayed:
    """Raises NoSuchWebhook."""
    await require(table, name)
    states: list[State] = ["held", "given_up", *(("delivered",) if wanted.delivered else ())]
    since: datetime | None = wanted.since
    return Replayed(replayed=await table.replay(name, states, since, wanted.image_id))


async def enable(table: WebhookTable, name: str) -> Enabled:
    """Raises NoSuchWebhook."""
    await require(table, name)
    return Enabled(name=name, was_off=await table.enable(name))


async def require(table: WebhookTable, name: str) -> None:
    """Raises NoSuchWebhook."""
    if name not in await table.endpoints():
        raise NoSuchWebhook(name)
