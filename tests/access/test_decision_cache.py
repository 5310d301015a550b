"""What the authorization cache keeps, for how long, of whom, and how much."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsvc.access.decision_cache import DecisionCache, Lifetimes, Question

LIFETIMES = Lifetimes(read=300, write=60, admin=30, denied=120)
UPLOAD = Question("org", "alice", "image:upload")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def answers(clock: Clock) -> DecisionCache:
    return DecisionCache(LIFETIMES, max_entries=3, clock=clock)


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize(
    ("permission", "seconds"),
    [
        *((f"image:{action}", 300) for action in ("read", "list", "view", "get")),
        *((f"image:{action}", 30) for action in ("admin", "delete", "purge")),
        *((permission, 60) for permission in ("image:upload", "image:ready", "read:upload", "upload", "")),
        ("read", 300),
        ("a:b:delete", 30),
    ],
)
def test_lifetime_is_by_the_action(
    answers: DecisionCache, clock: Clock, permission: str, seconds: float, allowed: bool
) -> None:
    question = Question("org", "alice", permission)
    answers.keep(question, allowed)
    clock.now += (seconds if allowed else 120) - 0.001
    assert answers.get(question) is allowed
    assert len(answers) == 1
    clock.now += 0.001
    assert answers.get(question) is None
    assert len(answers) == 0


def test_a_look_does_not_make_it_live_longer(answers: DecisionCache, clock: Clock) -> None:
    answers.keep(UPLOAD, True)
    for _ in range(6):
        clock.now += 10
        seen = answers.get(UPLOAD)
    assert seen is None


def test_the_last_answer_counts(answers: DecisionCache, clock: Clock) -> None:
    answers.keep(UPLOAD, True)
    answers.keep(UPLOAD, False)
    assert answers.get(UPLOAD) is False
    clock.now += 119
    assert answers.get(UPLOAD) is False


def test_an_answer_that_is_not_kept_replaces_an_older_one(clock: Clock) -> None:
    answers = DecisionCache(Lifetimes(read=300, write=60, admin=30, denied=0), clock=clock)
    answers.keep(UPLOAD, True)
    answers.keep(UPLOAD, False)
    assert (answers.get(UPLOAD), len(answers)) == (None, 0)


def test_it_is_bounded_and_keeps_what_was_used_last(answers: DecisionCache) -> None:
    one, two, three, four = (Question("org", user, "image:upload") for user in "1234")
    for question in (one, two, three):
        answers.keep(question, True)
    assert answers.get(one) is True
    answers.keep(four, True)
    assert [answers.get(question) for question in (one, two, three, four)] == [True, None, True, True]
    assert len(answers) == 3


def test_nothing_is_kept_when_it_is_off_or_the_lifetime_is_none(clock: Clock) -> None:
    off = DecisionCache(LIFETIMES, enabled=False, clock=clock)
    off.keep(UPLOAD, True)
    none = DecisionCache(Lifetimes(0, 0, 0, 0), clock=clock)
    none.keep(UPLOAD, False)
    assert (off.get(UPLOAD), none.get(UPLOAD), len(off), len(none)) == (None, None, 0, 0)


def test_drop_is_of_one_user_and_counts_what_still_lived(answers: DecisionCache, clock: Clock) -> None:
    admin, bob = Question("org", "alice", "image:admin"), Question("org", "bob", "image:upload")
    for question in (UPLOAD, admin, bob):
        answers.keep(question, True)
    clock.now += 30  # the admin's is over
    assert answers.drop("org", "alice") == 1
    assert answers.drop("org", "alice") == 0
    assert (answers.get(UPLOAD), answers.get(bob)) == (None, True)


NAMES = st.text(alphabet="ab:/\\|\x1f\u2028é", min_size=1, max_size=4)
QUESTIONS = st.builds(Question, NAMES, NAMES, st.sampled_from(["image:upload", "image:read", "b:image:read"]))


@settings(deadline=None)
@given(st.dictionaries(QUESTIONS, st.booleans(), max_size=30), NAMES, NAMES)
def test_no_two_users_share_an_answer(said: dict[Question, bool], org: str, user: str) -> None:
    answers = DecisionCache(LIFETIMES)
    for question, allowed in said.items():
        answers.keep(question, allowed)
    assert {question: answers.get(question) for question in said} == said
    gone = {question for question in said if (question.org_id, question.user_id) == (org, user)}
    assert answers.drop(org, user) == len(gone)
    assert {question for question in said if answers.get(question) is None} == gone


def test_colon_in_a_name_is_no_border(answers: DecisionCache) -> None:
    answers.keep(Question("a:b", "c", "image:upload"), True)
    answers.keep(Question("a", "b:c", "image:upload"), False)
    assert answers.get(Question("a:b", "c", "image:upload")) is True
    assert answers.get(Question("a", "b:c", "image:upload")) is False
    assert answers.drop("a", "b:c") == 1
    assert answers.get(Question("a:b", "c", "image:upload")) is True
