"""Two clocks: what is a jump, how long nothing is removed after it, and what a start makes of the last reading."""

from dataclasses import dataclass

import pytest

from imgsvc.jobs.clocks import AGREEMENT_SECONDS, Clocks, Reading

DAY = 86400.0


@dataclass
class Hand:
    """Clocks that are set by hand."""

    wall: float = 1_800_000_000.0
    boot: float = 5_000.0
    boot_id: str = "a"

    def __call__(self) -> Reading:
        return Reading(self.wall, self.boot, self.boot_id)

    def go(self, seconds: float, *, wall: float = 0) -> None:
        """Let time pass, and set the wall clock forward by so much."""
        self.wall += seconds + wall
        self.boot += seconds


@pytest.mark.parametrize(
    ("jump", "agree"), [(299, True), (-299, True), (301, False), (-301, False), (400 * DAY, False)]
)
def test_jump_while_running(jump: float, agree: bool) -> None:
    hand = Hand()
    clocks = Clocks(read=hand)
    assert clocks.agree
    hand.go(60, wall=jump)
    assert clocks.agree is agree
    hand.go(AGREEMENT_SECONDS - 1)
    assert clocks.agree is agree
    assert clocks.seconds_left == (0 if agree else 1)
    hand.go(1)
    assert clocks.agree


def test_hour_begins_anew_with_each_jump() -> None:
    hand = Hand()
    clocks = Clocks(read=hand)
    hand.go(60, wall=DAY)
    assert not clocks.agree
    hand.go(AGREEMENT_SECONDS - 60)
    assert not clocks.agree
    hand.go(30, wall=-DAY)  # set right again: that is a jump too
    assert not clocks.agree
    hand.go(AGREEMENT_SECONDS - 1)
    assert not clocks.agree
    hand.go(1)
    assert clocks.agree


def test_slow_clock_is_no_jump() -> None:
    """A quartz that is off by 4 seconds a day reaches 5 minutes in 75 days."""
    hand = Hand()
    clocks = Clocks(read=hand)
    for _ in range(24 * 100):
        hand.go(3600, wall=4 / 24)
        assert clocks.agree


BEFORE = Reading(1_800_000_000.0, 5_000.0, "a")
STARTS = {
    "at once": (Reading(1_800_000_001.0, 5_001.0, "a"), True),
    "a day later, after a boot": (Reading(1_800_000_000.0 + DAY, 60.0, "b"), True),
    "a week later": (Reading(1_800_000_000.0 + 7 * DAY, 60.0, "b"), True),
    "more than a week later": (Reading(1_800_000_001.0 + 7 * DAY, 60.0, "b"), False),
    "before": (Reading(1_799_999_999.0, 60.0, "b"), False),
    "set forward meanwhile, without a boot": (Reading(1_800_000_000.0 + DAY, 5_060.0, "a"), False),
    "suspended for a day": (Reading(1_800_000_000.0 + DAY, 5_000.0 + DAY, "a"), True),
}


@pytest.mark.parametrize("name", STARTS)
def test_start(name: str) -> None:
    found, agree = STARTS[name]
    hand = Hand(found.wall, found.boot, found.boot_id)
    clocks = Clocks(BEFORE, read=hand)
    assert clocks.agree is agree
    hand.go(AGREEMENT_SECONDS)
    assert clocks.agree


def test_doubt_outlives_a_restart() -> None:
    hand = Hand(BEFORE.wall + 1, BEFORE.boot + 1)
    clocks = Clocks(BEFORE, doubted=True, read=hand)
    assert not clocks.agree
    hand.go(AGREEMENT_SECONDS)
    assert clocks.agree


def test_real_clocks_agree() -> None:
    clocks = Clocks()
    assert clocks.agree and clocks.seconds_left == 0
    assert clocks.current.boot > 0
