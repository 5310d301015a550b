"""The circuit breaker: its whole table of states, then every order of events against a model of it."""

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from imgsvc.access.circuit_breaker import Breaker, BreakerOpen, State

THRESHOLD, TIMEOUT = 3, 60.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Call:
    """One that is under way for as long as a test likes."""

    def __init__(self, breaker: Breaker) -> None:
        self._attempt = breaker.attempt()
        self._attempt.__enter__()

    def succeeds(self) -> None:
        self._attempt.__exit__(None, None, None)

    def fails(self) -> None:
        error = OSError()
        assert not self._attempt.__exit__(OSError, error, None)

    def cancelled(self) -> None:
        error = asyncio.CancelledError()
        assert not self._attempt.__exit__(asyncio.CancelledError, error, None)


def call(breaker: Breaker, end: str) -> str:
    """`refused`, or how it ended."""
    try:
        one = Call(breaker)
    except BreakerOpen:
        return "refused"
    getattr(one, end)()
    return end


def breaker_in(state: str) -> tuple[Breaker, Clock]:
    clock = Clock()
    breaker = Breaker(THRESHOLD, TIMEOUT, clock)
    failures = {"closed": 0, "closed, last but one": THRESHOLD - 1, "open": THRESHOLD, "half_open": THRESHOLD}[state]
    for _ in range(failures):
        assert call(breaker, "fails") == "fails"
    clock.now += TIMEOUT if state == "half_open" else 0
    return breaker, clock


@pytest.mark.parametrize(
    ("before", "event", "after", "failures"),
    [
        ("closed", "succeeds", "closed", 0),
        ("closed", "fails", "closed", 1),
        ("closed", "cancelled", "closed", 0),
        ("closed", "time passes", "closed", 0),
        ("closed, last but one", "succeeds", "closed", 0),
        ("closed, last but one", "fails", "open", THRESHOLD),
        ("closed, last but one", "cancelled", "closed", THRESHOLD - 1),
        ("closed, last but one", "time passes", "closed", THRESHOLD - 1),
        ("open", "succeeds", "open", THRESHOLD),  # these three are refused
        ("open", "fails", "open", THRESHOLD),
        ("open", "cancelled", "open", THRESHOLD),
        ("open", "time passes", "half_open", THRESHOLD),
        ("half_open", "succeeds", "closed", 0),
        ("half_open", "fails", "open", THRESHOLD + 1),
        ("half_open", "cancelled", "half_open", THRESHOLD),
        ("half_open", "time passes", "half_open", THRESHOLD),
    ],
)
def test_table(before: str, event: str, after: State, failures: int) -> None:
    breaker, clock = breaker_in(before)
    if event == "time passes":
        clock.now += TIMEOUT
    else:
        assert call(breaker, event) == ("refused" if before == "open" else event)
    assert (breaker.state, breaker.failures) == (after, failures)
    assert (breaker.opened_at is None) == (after == "closed")
    assert breaker.remaining_seconds == (TIMEOUT if after == "open" else 0)


def test_it_stays_open_until_the_very_end() -> None:
    breaker, clock = breaker_in("open")
    clock.now += TIMEOUT - 0.001
    assert (breaker.state, call(breaker, "succeeds")) == ("open", "refused")
    assert breaker.remaining_seconds == pytest.approx(0.001)
    clock.now += 0.001
    assert call(breaker, "succeeds") == "succeeds"


def test_reopening_waits_the_whole_time_again() -> None:
    breaker, _ = breaker_in("half_open")
    first = breaker.opened_at
    assert call(breaker, "fails") == "fails"
    assert (breaker.state, breaker.remaining_seconds) == ("open", TIMEOUT)
    assert first and breaker.opened_at and breaker.opened_at > first


@pytest.mark.parametrize("end", ["succeeds", "fails", "cancelled"])
def test_one_probe_at_a_time(end: str) -> None:
    breaker, _ = breaker_in("half_open")
    probe = Call(breaker)
    assert [call(breaker, "succeeds") for _ in range(99)] == ["refused"] * 99
    getattr(probe, end)()
    expected = {"succeeds": "succeeds", "fails": "refused", "cancelled": "succeeds"}[end]
    assert call(breaker, "succeeds") == expected


@pytest.mark.parametrize("late", ["succeeds", "fails", "cancelled"])
@pytest.mark.parametrize("state", ["open", "half_open", "probing", "closed again"])
def test_what_began_before_the_opening_has_no_say(state: str, late: str) -> None:
    clock = Clock()
    breaker = Breaker(THRESHOLD, TIMEOUT, clock)
    old = Call(breaker)
    for _ in range(THRESHOLD):
        call(breaker, "fails")
    clock.now += 0 if state == "open" else TIMEOUT
    probe = Call(breaker) if state in ("probing", "closed again") else None
    if probe and state == "closed again":
        probe.succeeds()
    before = (breaker.state, breaker.failures, breaker.opened_at, breaker.remaining_seconds)
    getattr(old, late)()
    assert (breaker.state, breaker.failures, breaker.opened_at, breaker.remaining_seconds) == before
    if probe and state == "probing":
        assert call(breaker, "succeeds") == "refused"  # the place is still taken
        probe.succeeds()
        assert breaker.state == "closed"


def test_probe_of_an_earlier_time_does_not_free_the_place_of_a_later_one() -> None:
    breaker, clock = breaker_in("half_open")
    first = Call(breaker)
    first.fails()
    clock.now += TIMEOUT
    second = Call(breaker)
    assert call(breaker, "succeeds") == "refused"
    second.succeeds()
    assert (breaker.state, breaker.failures) == ("closed", 0)


class AnyOrder(RuleBasedStateMachine):
    """Calls begin, end and are cancelled in any order, while time passes in steps."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(THRESHOLD, TIMEOUT, self.clock)
        self.under_way: list[tuple[Call, int]] = []
        self.period = 0  # how often it opened or closed
        self.open_until: float | None = None
        self.probe: Call | None = None
        self.row = 0

    @rule(seconds=st.sampled_from([1.0, TIMEOUT / 2, TIMEOUT]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def begin(self) -> None:
        held = self.open_until is not None and (self.clock.now < self.open_until or self.probe is not None)
        try:
            one = Call(self.breaker)
        except BreakerOpen:
            assert held
            return
        assert not held
        self.under_way.append((one, self.period))
        if self.open_until is not None:
            self.probe = one

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), end=st.sampled_from(["succeeds", "fails", "cancelled"]))
    def end(self, data: st.DataObject, end: str) -> None:
        one, period = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        getattr(one, end)()
        if period != self.period:
            return
        probing, self.probe = self.probe is one, None if self.probe is one else self.probe
        if end == "succeeds":
            self.row = 0
            self.turn(None, probing)
        elif end == "fails":
            self.row += 1
            self.turn(self.clock.now + TIMEOUT, probing or self.row == THRESHOLD)

    def turn(self, open_until: float | None, really: bool) -> None:
        if really:
            self.open_until, self.probe = open_until, None
            self.period += 1

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        late = self.open_until is not None and self.clock.now >= self.open_until
        expected = "closed" if self.open_until is None else "half_open" if late else "open"
        assert (self.breaker.state, self.breaker.failures) == (expected, self.row)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
