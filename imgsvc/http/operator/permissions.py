"""The state of the authorization server, and dropping a user's cached decisions."""

from typing import Literal

import structlog
from starlette.requests import Request
from starlette.responses import Response

from ...access.circuit_breaker import Breaker, State
from ...jobs.answer_model import AnswerModel, example
from ...jobs.table.model import as_text, now
from ...settings.hosts import without_credentials
from ..openapi.operations import operation
from ..state import state_of
from ..wire.json_response import json_response
from . import auth as operator_auth

log = structlog.get_logger()


class CircuitBreaker(AnswerModel):
    """`failures` in a row; open after `threshold` of them, for `timeout_seconds` from `opened_at` on."""

    state: State
    failures: int
    threshold: int
    timeout_seconds: float
    opened_at: str | None


class AuthApi(AnswerModel):
    """`url` is null without an authorization server."""

    url: str | None
    timeout_seconds: float
    circuit_breaker: CircuitBreaker


class TtlConfig(AnswerModel):
    read_seconds: int
    write_seconds: int
    admin_seconds: int
    denied_seconds: int


class AuthCache(AnswerModel):
    enabled: bool
    entries: int
    ttl_config: TtlConfig


class AuthConfig(AnswerModel):
    permissions: Literal["none", "claims", "remote"]
    fail_open: bool


class AuthHealth(AnswerModel):
    """`degraded` while the last call failed or calls are held back."""

    model_config = example(
        status="degraded",
        auth_api={
            "url": "https://auth.example.org",
            "timeout_seconds": 5,
            "circuit_breaker": {
                "state": "open",
                "failures": 5,
                "threshold": 5,
                "timeout_seconds": 60,
                "opened_at": "2026-03-01T11:59:30.000000+00:00",
            },
        },
        cache={
            "enabled": True,
            "entries": 140,
            "ttl_config": {"read_seconds": 300, "write_seconds": 60, "admin_seconds": 30, "denied_seconds": 120},
        },
        config={"permissions": "remote", "fail_open": False},
        timestamp="2026-03-01T12:00:00.000000+00:00",
    )

    status: Literal["healthy", "degraded"]
    auth_api: AuthApi
    cache: AuthCache
    config: AuthConfig
    timestamp: str


class Dropped(AnswerModel):
    """`dropped` is the number of cached answers that were dropped."""

    model_config = example(org_id="default-org", user_id="alice", dropped=2)

    org_id: str
    user_id: str
    dropped: int


@operation(
    "authorization_health",
    "health",
    "Whether the authorization server answers",
    access="operator",
    answers={200: AuthHealth},
)
async def health(request: Request) -> Response:
    """The state after the latest calls; this endpoint makes none. Healthy without an authorization server."""
    await operator_auth.require_reader(request)
    state = state_of(request)
    auth, remote = state.settings.auth, state.access.remote
    breaker = remote.breaker if remote else Breaker(auth.breaker_threshold, auth.breaker_timeout)
    return json_response(
        AuthHealth(
            status="degraded" if breaker.failures else "healthy",
            auth_api=AuthApi(
                url=without_credentials(auth.api_url) if remote else None,
                timeout_seconds=auth.api_timeout,
                circuit_breaker=_circuit_breaker(breaker),
            ),
            cache=AuthCache(
                enabled=remote is not None and auth.cache_enabled,
                entries=len(remote.answers) if remote else 0,
                ttl_config=TtlConfig(
                    read_seconds=auth.cache_ttl_read,
                    write_seconds=auth.cache_ttl_write,
                    admin_seconds=auth.cache_ttl_admin,
                    denied_seconds=auth.cache_ttl_denied,
                ),
            ),
            config=AuthConfig(permissions=auth.permissions, fail_open=auth.fail_open),
            timestamp=as_text(now()),
        )
    )


@operation(
    "authorization_drop", "operator", "Drop a user's permissions", access="operator_acting", answers={200: Dropped}
)
async def drop(request: Request) -> Response:
    """Drop the cached answers of the authorization server for this user; calls in progress are not cached either."""
    await operator_auth.require_operator(request)
    org_id, user_id = str(request.path_params["org"]), str(request.path_params["user"])
    remote = state_of(request).access.remote
    dropped = remote.drop(org_id, user_id) if remote else 0
    log.info("permissions_dropped", org_id=org_id, user_id=user_id, dropped=dropped)
    return json_response(Dropped(org_id=org_id, user_id=user_id, dropped=dropped))


def _circuit_breaker(breaker: Breaker) -> CircuitBreaker:
    return CircuitBreaker(
        state=breaker.state,
        failures=breaker.failures,
        threshold=breaker.threshold,
        timeout_seconds=breaker.timeout_seconds,
        opened_at=as_text(breaker.opened_at) if breaker.opened_at else None,
    )
