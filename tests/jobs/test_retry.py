import pytest

from imgsvc.jobs.retry import ALONE_AFTER_STARTS, FINAL, MAX_DEATHS, Decision, Failure, decide, exclusive

FAIL, GIVE_UP = Decision("fail"), Decision("fail", retryable=True)
AT_ONCE, LATER = Decision("retry"), Decision("retry", 60)


@pytest.mark.parametrize(
    ("code", "death", "attempts", "deaths", "expected"),
    [
        ("image_unreadable", False, 0, 0, FAIL),
        ("image_too_large", False, 0, 0, FAIL),
        ("image_unsupported", False, 0, 0, FAIL),
        ("memory_limit", False, 0, 0, FAIL),
        ("source_missing", False, 0, 0, GIVE_UP),
        ("place_taken", False, 0, 0, GIVE_UP),
        ("memory_limit", True, 0, 0, FAIL),
        ("worker_died", True, 0, 0, AT_ONCE),
        ("worker_died", True, 0, MAX_DEATHS - 1, FAIL),
        ("worker_died", True, 0, MAX_DEATHS, FAIL),
        ("worker_died", True, 9, 0, AT_ONCE),
        ("storage_error", False, 0, 0, LATER),
        ("storage_error", False, 1, 0, LATER),
        ("storage_error", False, 2, 0, GIVE_UP),
        ("storage_error", False, 9, 0, GIVE_UP),
        ("storage_error", False, 0, MAX_DEATHS, LATER),
        ("timeout", False, 0, 0, LATER),
        ("timeout", False, 1, 0, GIVE_UP),
        ("timeout", False, 2, 0, GIVE_UP),
        ("unheard_of", False, 0, 0, LATER),
    ],
)
def test_decision(code: str, death: bool, attempts: int, deaths: int, expected: Decision) -> None:
    failure = Failure(code, "A sentence.", death)
    assert decide(failure, attempts=attempts, deaths=deaths, max_attempts=3, delay_seconds=60) == expected


@pytest.mark.parametrize("code", sorted(FINAL))
@pytest.mark.parametrize("death", [False, True])
def test_the_files_own_fault_is_never_tried_again(code: str, death: bool) -> None:
    failure = Failure(code, "A sentence.", death)
    assert decide(failure, attempts=0, deaths=0, max_attempts=100, delay_seconds=60) == FAIL


@pytest.mark.parametrize("max_attempts", [1, 2, 5])
def test_runs_as_often_as_configured(max_attempts: int) -> None:
    failure, runs = Failure("storage_error", "A sentence."), 1
    while decide(failure, attempts=runs - 1, deaths=0, max_attempts=max_attempts, delay_seconds=0).outcome == "retry":
        runs += 1
    assert runs == max_attempts


@pytest.mark.parametrize(("max_attempts", "runs"), [(1, 1), (2, 2), (5, 2)])
def test_what_takes_too_long_runs_twice_at_most(max_attempts: int, runs: int) -> None:
    failure, done = Failure("timeout", "A sentence."), 1
    while decide(failure, attempts=done - 1, deaths=0, max_attempts=max_attempts, delay_seconds=0).outcome == "retry":
        done += 1
    assert done == runs


def test_one_file_takes_no_more_workers_than_allowed() -> None:
    failure, deaths = Failure("worker_died", "A sentence.", death=True), 0
    while decide(failure, attempts=0, deaths=deaths, max_attempts=100, delay_seconds=0).outcome == "retry":
        deaths += 1
    assert deaths + 1 == MAX_DEATHS


@pytest.mark.parametrize(
    ("deaths", "starts", "alone"),
    [
        (0, 0, False),
        (0, 1, False),
        (0, ALONE_AFTER_STARTS - 1, False),
        (0, ALONE_AFTER_STARTS, True),
        (0, ALONE_AFTER_STARTS + 1, True),
        (1, 0, True),
        (1, ALONE_AFTER_STARTS, True),
    ],
)
def test_what_runs_alone(deaths: int, starts: int, alone: bool) -> None:
    assert exclusive(deaths=deaths, starts=starts) is alone
