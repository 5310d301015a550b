"""Permissions by an authorization server: cached, one call at a time, no calls while it is unavailable.

The contract of the call is in docs/guides/permissions.md, "Remote authorization".
"""

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import field

import anyio
import structlog
from anyio.abc import TaskGroup

from ..lazy_dataclass import dataclass
from ..settings.auth import Auth
from .authorization_client import AuthorizationApi, NoAnswer, authorization_client
from .circuit_breaker import Breaker, BreakerOpen
from .decision_cache import DecisionCache, Lifetimes, Question
from .permissions import Unavailable

log = structlog.get_logger()

RETRY_SECONDS = 5  # after a failed call that has not opened the breaker, or during a probe


@dataclass(slots=True, eq=False)
class _InFlightCall:
    """One in-call call and the requests that wait for it. `allowed` stays None if there was no answer."""

    done: anyio.Event = field(default_factory=anyio.Event)
    allowed: bool | None = None
    outdated: bool = False  # the user was dropped after the call began


class RemoteAuthorization:
    """Calls run as separate tasks: a client that disconnects does not cancel the call, and the answer is cached."""

    def __init__(
        self,
        api: AuthorizationApi,
        group: TaskGroup,
        answers: DecisionCache,
        breaker: Breaker,
        *,
        fail_open: bool = False,
    ) -> None:
        self.answers = answers
        self.breaker = breaker
        self._api = api
        self._group = group
        self._fail_open = fail_open
        self._calls: dict[Question, _InFlightCall] = {}
        self._unanswered: int | None = None  # undecided requests of the current outage; None: there is no outage

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, auth: Auth, clock: Callable[[], float] = time.monotonic
    ) -> AsyncIterator["RemoteAuthorization"]:
        """Open with connections and a task group."""
        lifetimes = Lifetimes(auth.cache_ttl_read, auth.cache_ttl_write, auth.cache_ttl_admin, auth.cache_ttl_denied)
        async with authorization_client() as client, anyio.create_task_group() as group:
            yield cls(
                AuthorizationApi(client, auth.api_url, auth.api_timeout),
                group,
                DecisionCache(lifetimes, enabled=auth.cache_enabled, clock=clock),
                Breaker(auth.breaker_threshold, auth.breaker_timeout, clock),
                fail_open=auth.fail_open,
            )
            group.cancel_scope.cancel()

    async def allowed(self, org_id: str, user_id: str, permission: str) -> bool:
        """Whether the user has the permission. Raises Unavailable, unless `fail_open` is set."""
        question = Question(org_id, user_id, permission)
        known = self.answers.get(question)
        if known is None:
            known = await self._asked(question)
        if known is not None:
            return known
        if self._unanswered is not None:
            self._unanswered += 1
        if not self._fail_open:
            raise Unavailable(math.ceil(self.breaker.remaining_seconds) or RETRY_SECONDS)
        # One log line for each: these requests were allowed without a check.
        log.warning("allowed_without_authorization", **question._asdict())
        return True

    def drop(self, org_id: str, user_id: str) -> int:
        """Drop a user's cached decisions, and ignore the results of calls in call; returns the number of decisions."""
        for question in [question for question in self._calls if question[:2] == (org_id, user_id)]:
            self._calls.pop(question).outdated = True
        return self.answers.drop(org_id, user_id)

    async def _asked(self, question: Question) -> bool | None:
        call = self._calls.get(question)
        if call is None:
            call = self._calls[question] = _InFlightCall()
            self._group.start_soon(self._call, question, call)
        await call.done.wait()
        return call.allowed

    async def _call(self, question: Question, call: _InFlightCall) -> None:
        try:
            with self.breaker.attempt():
                call.allowed = await self._api.ask(question)
            if not call.outdated:
                self.answers.keep(question, call.allowed)
            self._answered()
        except BreakerOpen:
            pass
        except NoAnswer as error:
            self._failed(str(error))
        except Exception as error:
            log.error("authorization_failed", exc_info=error)
        finally:
            if self._calls.get(question) is call:
                del self._calls[question]
            call.done.set()

    def _failed(self, reason: str) -> None:
        if self._unanswered is None:
            self._unanswered = 0
            log.warning("authorization_unavailable", reason=reason, fail_open=self._fail_open)

    def _answered(self) -> None:
        if self._unanswered is not None and self.breaker.state == "closed":  # not a late answer from before
            log.info("authorization_available", unanswered=self._unanswered)
            self._unanswered = None
