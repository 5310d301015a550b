"""Webhooks for the operator: what waits, the delivery log, sending again, a test, and switching on."""

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ...jobs import webhook_views as views
from ..openapi.operations import Answer, operation
from ..state import state_of
from ..wire.json_body import json_body
from ..wire.json_response import json_response
from ..wire.problems import NO_STORE, webhook_not_found
from ..wire.validation import WHOLE_NUMBER, StrictQuery, parsed
from . import auth


class LogQuery(StrictQuery):
    limit: Annotated[
        int, Field(ge=1, le=views.MAX_LOGGED, description="The largest number of attempts to list."), WHOLE_NUMBER
    ] = 50


@operation(
    "operator_webhooks",
    "operator",
    "The endpoints of webhooks",
    access="operator",
    answers={200: views.WebhookEndpoints},
    errors=("overloaded",),
)
async def webhooks(request: Request) -> Response:
    """With their waiting deliveries, and whether they are switched off."""
    await auth.require_reader(request)
    return json_response(await views.listed(state_of(request).telling.table))


@operation(
    "operator_webhooks_attempts",
    "operator",
    "The delivery log of a webhook",
    access="operator",
    query=LogQuery,
    answers={200: views.WebhookLog},
    errors=("webhook_not_found", "overloaded"),
)
async def attempts(request: Request) -> Response:
    """Each request with its status and time; never a body or a header."""
    await auth.require_reader(request)
    limit = parsed(request, LogQuery).limit
    return json_response(await views.logged(state_of(request).telling.table, _name(request), limit))


@operation(
    "operator_webhooks_replay",
    "operator",
    "Send deliveries again",
    access="operator_acting",
    body=views.ReplayRequest,
    answers={202: Answer("They wait again, in their order.", views.Replayed)},
    errors=("webhook_not_found", "overloaded"),
)
async def replay(request: Request) -> Response:
    """With the same `webhook-id` as before, so that a receiver can tell what it has already."""
    await auth.require_operator(request)
    table = state_of(request).telling.table
    await views.require(table, _name(request))
    replayed = await views.replay(table, _name(request), await json_body(request, views.ReplayRequest))
    _wake(request)
    return json_response(replayed, 202, NO_STORE)


@operation(
    "operator_webhooks_enable",
    "operator",
    "Switch a webhook on again",
    access="operator_acting",
    answers={200: views.Enabled},
    errors=("webhook_not_found", "overloaded"),
)
async def enable(request: Request) -> Response:
    """After it answered 410. What waits for it is sent at once."""
    await auth.require_operator(request)
    enabled = await views.enable(state_of(request).telling.table, _name(request))
    _wake(request)
    return json_response(enabled)


@operation(
    "operator_webhooks_test",
    "operator",
    "Send a test to a webhook",
    access="operator_acting",
    answers={200: views.Tested},
    errors=("webhook_not_found",),
)
async def test(request: Request) -> Response:
    """Sends a signed `webhook.test` once, now; the response says how the endpoint answered."""
    await auth.require_operator(request)
    found = state_of(request).telling.webhooks
    if found is None or _name(request) not in found.senders:
        raise webhook_not_found()
    posted = await found.senders[_name(request)].test()
    attempt = posted.attempt
    return json_response(
        views.Tested(ok=posted.ok, status=attempt.status, reason=attempt.reason, milliseconds=attempt.milliseconds)
    )


def _name(request: Request) -> str:
    return str(request.path_params["webhook"])


def _wake(request: Request) -> None:
    found = state_of(request).telling.webhooks
    if found is not None:
        found.wake()
