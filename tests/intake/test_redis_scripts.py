"""The two scripts against a model of what a fixed window is, in a real Redis."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from imgsvc.intake.redis_limit import ACQUIRE, EPOCH, MICROSECOND, RELEASE, RedisRateLimit
from tests.support.redis_server import RedisServer

WINDOW = timedelta(hours=1)
TENTH = WINDOW / 10 // MICROSECOND


@pytest.fixture(scope="module")
def redis() -> Iterator["Redis"]:
    with RedisServer() as server, server.client() as client:
        yield client


@dataclass(eq=False)
class Window:
    """`age` in tenths of the window's length."""

    start: int
    used: int = 0
    age: int = 0


class Model:
    """What users have, and the places that they may still give back, beside what Redis says of it."""

    def __init__(self, redis: "Redis") -> None:
        self.redis = redis
        self.windows: dict[str, Window] = {}
        self.taken: list[tuple[str, Window]] = []
        redis.flushall()

    def take(self, user: str, limit: int, places: int) -> None:
        window = self.windows.get(user)
        old = window is None or not 0 <= window.age < 10
        used = 0 if old or window is None else window.used
        granted = bool(places) and used < limit
        told: Any = self.redis.eval(ACQUIRE, 1, user, limit, WINDOW // MICROSECOND, places)
        assert told[:2] == [int(granted), used + granted]
        if not old and window is not None:
            assert told[2] == window.start
        if granted:
            window = self.windows[user] = Window(told[2]) if old or window is None else window
            window.used += 1
            self.taken.append((user, window))
            began = EPOCH + timedelta(microseconds=told[2])
            assert window.age or abs(datetime.now(UTC) - began) < timedelta(seconds=30)

    def give_back(self, which: int) -> None:
        """A place is given back once."""
        if not self.taken:
            return
        user, window = self.taken.pop(which % len(self.taken))
        current = self.windows.get(user) is window
        assert self.redis.eval(RELEASE, 1, user, window.start) == int(current)
        window.used -= 1
        if current and not window.used:
            del self.windows[user]

    def pass_time(self, tenths: int) -> None:
        """As if the clock of Redis had gone on, or had been set back."""
        for user, window in self.windows.items():
            window.age += tenths
            window.start -= tenths * TENTH
            self.redis.hset(user, "start", str(window.start))

    def check(self) -> None:
        assert {user: int(str(self.redis.hget(user, "used"))) for user in self.redis.scan_iter()} == {
            user: window.used for user, window in self.windows.items()
        }
        longest = WINDOW / timedelta(milliseconds=1) + 100  # the server's clock of deadlines may lag a little
        assert all(0 < self.redis.pttl(user) <= longest for user in self.windows)


take = st.tuples(st.just("take"), st.sampled_from("ab"), st.integers(0, 4), st.sampled_from([1, 1, 1, 0]))
give_back = st.tuples(st.just("give_back"), st.integers(0, 9))
pass_time = st.tuples(st.just("pass_time"), st.sampled_from([3, 7, 10, -1]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(take, take, give_back, pass_time), max_size=30))
def test_scripts_do_what_the_model_does(redis: "Redis", steps: list[tuple[Any, ...]]) -> None:
    model = Model(redis)
    for name, *values in steps:
        getattr(model, name)(*values)
        model.check()


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "1", "11", ""]), min_size=3, max_size=6), st.data())
def test_no_two_users_share_a_key(words: list[str], data: st.DataObject) -> None:
    """The same words, parted into org and user at two different colons."""
    places = st.lists(st.integers(1, len(words) - 1), min_size=2, max_size=2, unique=True)
    key = RedisRateLimit("redis://nowhere", 0.05, "imgsvc:").key
    one, other = (key(":".join(words[:at]), ":".join(words[at:])) for at in data.draw(places))
    assert one != other
