"""Codes, and the slowing down of guesses, against a clock of the test's own."""

import hmac
import time
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsvc.access.login_throttle import BURST, EVERY_SECONDS, MAX_ADDRESSES, LoginThrottle
from imgsvc.access.operator_auth import CODE_SECONDS, OperatorAuth, login_code

TOKEN, RUN = "t" * 40, "r" * 32
OTHER = "u" * 40


@dataclass
class Clock:
    moment: float

    def __call__(self) -> float:
        return self.moment


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
def some(clock: Clock) -> OperatorAuth:
    return OperatorAuth(TOKEN, RUN, clock=clock)


def test_only_the_token_is_known(some: OperatorAuth) -> None:
    assert some.knows(TOKEN)
    for wrong in ("", TOKEN[:-1], TOKEN + "t", TOKEN.upper(), OTHER, "\ud800"):
        assert not some.knows(wrong)


def test_code_is_good_once(some: OperatorAuth) -> None:
    code = login_code(TOKEN, RUN)
    assert some.redeem_code(code)
    assert not some.redeem_code(code)
    assert some.redeem_code(login_code(TOKEN, RUN))


def test_code_is_good_for_ten_minutes(some: OperatorAuth, clock: Clock) -> None:
    early, late = login_code(TOKEN, RUN), login_code(TOKEN, RUN)
    clock.moment += CODE_SECONDS - 5
    assert some.redeem_code(early)
    clock.moment += 10
    assert not some.redeem_code(late)


def test_code_of_another_run_is_not_good(some: OperatorAuth) -> None:
    assert not some.redeem_code(login_code(TOKEN, "q" * 32))
    assert not some.redeem_code(login_code(TOKEN, ""))


def test_clock_that_was_set_back_since_the_start_keeps_nobody_out(some: OperatorAuth, clock: Clock) -> None:
    clock.moment += 3600
    assert not some.redeem_code(login_code(TOKEN, RUN))
    clock.moment -= 3600
    assert some.redeem_code(login_code(TOKEN, RUN))


def test_code_from_the_future_is_not_good(some: OperatorAuth, clock: Clock) -> None:
    code = login_code(TOKEN, RUN)
    clock.moment -= 60
    assert not some.redeem_code(code)


def test_code_of_another_token_and_mangled_ones_are_not_good(some: OperatorAuth) -> None:
    code = login_code(TOKEN, RUN)
    made, nonce, signature = code.split(".")
    later = str(int(made) + 1)
    for wrong in (
        login_code(OTHER, RUN),
        f"{later}.{nonce}.{signature}",
        f"{made}.{nonce[::-1]}.{signature}",
        f"{made}.{nonce}.{signature[::-1]}",
        code[:-1],
        code + "0",
        code + "\n",
        code.replace(made, "१" * 13),
        "",
        "..",
        TOKEN,
    ):
        assert not some.redeem_code(wrong), wrong
    assert some.redeem_code(code)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_no_text_is_a_code(text: str) -> None:
    assert not OperatorAuth(TOKEN, RUN).redeem_code(text)


def test_used_codes_are_forgotten_once_they_are_over(some: OperatorAuth, clock: Clock) -> None:
    some.redeem_code(login_code(TOKEN, RUN))
    clock.moment += CODE_SECONDS + 1
    some.redeem_code(login_code(TOKEN, RUN))
    assert len(some._used) <= 1


def test_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch, some: OperatorAuth) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    some.knows("x")
    some.redeem_code(login_code(OTHER, RUN))
    assert compared == [(32, 32), (64, 64)]


def test_after_some_refusals_an_address_has_to_wait() -> None:
    clock = Clock(1000)
    attempts = LoginThrottle(clock)
    for _ in range(BURST):
        attempts.refused("192.0.2.1")
        assert attempts.wait("192.0.2.1") == 0
    for _ in range(100):
        attempts.refused("192.0.2.1")
        assert attempts.wait("192.0.2.1") == pytest.approx(2 * EVERY_SECONDS)
    assert attempts.wait("192.0.2.2") == 0
    clock.moment += 2 * EVERY_SECONDS
    attempts.refused("192.0.2.1")
    assert attempts.wait("192.0.2.1") == 0
    attempts.refused("192.0.2.1")
    assert attempts.wait("192.0.2.1") > 0


def test_ipv6_addresses_of_one_client_count_together_and_ipv4_ones_apart() -> None:
    attempts = LoginThrottle(Clock(1000))
    for last in range(BURST + 1):
        attempts.refused(f"2001:db8::{last:x}")
        attempts.refused("::ffff:192.0.2.1")
    assert attempts.wait("2001:db8::ffff:1")
    assert not attempts.wait("2001:db8:0:1::1")
    assert attempts.wait("192.0.2.1")
    assert not attempts.wait("::ffff:192.0.2.2")


def test_what_is_remembered_is_bounded() -> None:
    clock = Clock(1000)
    attempts = LoginThrottle(clock)
    for number in range(MAX_ADDRESSES + 10):
        attempts.refused(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(attempts._buckets) == MAX_ADDRESSES
    assert attempts.last_hour() == MAX_ADDRESSES + 10
    clock.moment += 3601
    assert attempts.last_hour() == 0
