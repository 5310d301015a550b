"""People for the operator: erasing everything of one, and the reports."""

from starlette.requests import Request
from starlette.responses import Response

from ...jobs.erasure_views import ErasureReport, ErasureReports
from ..openapi.operations import Answer, operation
from ..state import state_of
from ..wire.json_response import json_response
from ..wire.path_ids import path_id
from ..wire.problems import NO_STORE, erasure_not_found
from . import auth


@operation(
    "operator_users_erase",
    "operator",
    "Erase everything of a person",
    access="operator_acting",
    answers={202: Answer("It is on disk, and goes on by itself; also after a restart.", ErasureReport)},
    errors=("overloaded",),
)
async def erase(request: Request) -> Response:
    """Images, files, keys, tickets, rate limits, deliveries of webhooks, and the names in the audit trail.

    From now until it has ended the person can't upload, and gets neither key nor ticket (403 `being_erased`). Asked for
    again meanwhile, the answer is the report of the one that runs. It can't be undone.
    """
    await auth.require_operator(request)
    state, org_id, user_id = state_of(request), str(request.path_params["org"]), str(request.path_params["user"])
    erasure = await state.jobs.erasing.begin(org_id, user_id)
    if state.access.remote is not None:
        state.access.remote.drop(org_id, user_id)
    return json_response(ErasureReport.of(erasure), 202, NO_STORE)


@operation(
    "operator_erasures_list",
    "operator",
    "Reports of erased people",
    access="operator",
    answers={200: ErasureReports},
    errors=("overloaded",),
)
async def list_erasures(request: Request) -> Response:
    """Never public, although no report contains a name."""
    await auth.require_signed_in(request)
    found = await state_of(request).jobs.table.erasures.latest()
    return json_response(ErasureReports(erasures=[ErasureReport.of(one) for one in found]))


@operation(
    "operator_erasures_report",
    "operator",
    "The report of an erasure",
    access="operator",
    answers={200: ErasureReport},
    errors=("erasure_not_found", "overloaded"),
)
async def report(request: Request) -> Response:
    """How far it has come, and in the end what was removed."""
    await auth.require_signed_in(request)
    erasure_id = path_id(request, "erasure_id", erasure_not_found)
    found = await state_of(request).jobs.table.erasures.erasure(erasure_id)
    if found is None:
        raise erasure_not_found()
    return json_response(ErasureReport.of(found))
