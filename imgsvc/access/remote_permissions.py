"""Who may do what, as an authorization server says: remembered, asked once at a time, and left alone while it is away.

The contract of the call is in docs/guides/permissions.md, "Remote authorization".
"""

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import structlog
from anyio.abc import TaskGroup

from ..settings.auth import Auth
from .authorization_client import AuthorizationApi, NoAnswer, authorization_client
from .circuit_breaker import Breaker, BreakerOpen
from .decision_cache import DecisionCache, Lifetimes, Question
from .permissions import Unavailable

log = structlog.get_logger()

RETRY_SECONDS = 5  # after a failed call that has not opened the breaker, or while a probe is on its way


@dataclass(slots=True, eq=False)
class _Flight:
    """One call on its way, and whoever waits for it. `allowed` stays None when there was no answer."""

    landed: anyio.Event = field(default_factory=anyio.Event)
    allowed: bool | None = None
    outdated: bool = False  # the user was dropped after it began


class RemoteAuthorization:
    """Calls run as tasks of their own: a client that goes away ends nobody's call, and the answer is kept."""

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
        self._flights: dict[Question, _Flight] = {}
        self._unanswered: int | None = None  # questions of the outage that lasts; None: there is none

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, auth: Auth, clock: Callable[[], float] = time.monotonic
    ) -> AsyncIterator["RemoteAuthorization"]:
        """With the connections and tasks that it needs."""
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
        """Whether the user may. Raises Unavailable, unless it is set to let everybody through then."""
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
        # One line for each: these are the requests that nobody checked.
        log.warning("allowed_without_authorization", **question._asdict())
        return True

    def drop(self, org_id: str, user_id: str) -> int:
        """Forget what is known of a user, and let no call that is on its way fill it in again; how much was known."""
        for question in [question for question in self._flights if question[:2] == (org_id, user_id)]:
            self._flights.pop(question).outdated = True
        return self.answers.drop(org_id, user_id)

    async def _asked(self, question: Question) -> bool | None:
        flight = self._flights.get(question)
        if flight is None:
            flight = self._flights[question] = _Flight()
            self._group.start_soon(self._fly, question, flight)
        await flight.landed.wait()
        return flight.allowed

    async def _fly(self, question: Question, flight: _Flight) -> None:
        try:
            with self.breaker.attempt():
                flight.allowed = await self._api.ask(question)
            if not flight.outdated:
                self.answers.keep(question, flight.allowed)
            self._answered()
        except BreakerOpen:
            pass
        except NoAnswer as error:
            self._failed(str(error))
        except Exception as error:
            log.error("authorization_failed", exc_info=error)
        finally:
            if self._flights.get(question) is flight:
                del self._flights[question]
            flight.landed.set()

    def _failed(self, reason: str) -> None:
        if self._unanswered is None:
            self._unanswered = 0
            log.warning("authorization_unavailable", reason=reason, fail_open=self._fail_open)

    def _answered(self) -> None:
        if self._unanswered is not None and self.breaker.state == "closed":  # and no late answer of before
            log.info("authorization_answers_again", unanswered=self._unanswered)
            self._unanswered = None
