"""Promise 1, at one to three durable calls of each scenario: `./run torture kill-at` tries all of them.

KILL_AT_SEED chooses others.
"""

import os
import signal
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.support.forking import ForkServer
from tests.support.memory import memory
from tests.support.preload import Action, Call, Fault
from tests.support.speed import seconds
from tests.torture.kill_at import case
from tests.torture.kill_at.known_calls import one_kill
from tests.torture.kill_at.plan import ACTIONS, counted, sample
from tests.torture.kill_at.scenarios import SCENARIOS
from tests.torture.kill_at.scenarios.pictures import tiny
from tests.torture.kill_at.site import STOP_SECONDS, Gone, Site

pytestmark = pytest.mark.process
CASES = 3  # one of each action: each call has its turn in ./run torture kill-at
FULLY = {  # the path of a job, and what replaces or removes files; of the others one kill is tried
    *("first-start", "upload", "upload-in-chunks", "failing-picture", "delete-waiting", "delete-running"),
    "reuse",
    *("delete-completed", "old-data-folder", "backup", "restore", "migrate", "gc", "adopt", "set-aside", "retention"),
}
RARELY = {"revoke-and-restore"}  # of revoke-key and restore; what it adds shows with a lost page cache only
AT_ONCE = 4
MANY = 12
SEED = os.environ.get("KILL_AT_SEED", "1")


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    with ForkServer() as server:
        yield server


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=memory(), prefix="kill-at-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def ready(forks: ForkServer) -> Iterator[Callable[[case.Scenario], case.Attempt]]:
    """What a scenario begins with: made once for all that begin with the same files, which no case changes."""
    made: dict[object, case.Attempt] = {}
    with tempfile.TemporaryDirectory(dir=memory(), prefix="kill-at-") as name:

        def ready_for(scenario: case.Scenario) -> case.Attempt:
            beginning = scenario.prepare, scenario.equip
            if beginning not in made:
                made[beginning] = case.prepared(scenario, Site(Path(name) / str(len(made)), forks))
            return made[beginning]

        yield ready_for


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in RARELY])
def test_some_of_the_durable_calls(ready: Callable[[case.Scenario], case.Attempt], folder: Path, name: str) -> None:
    print(f"KILL_AT_SEED={SEED}")
    scenario = SCENARIOS[name]
    begin = ready(scenario)
    if name in FULLY:
        counting = case.run(scenario, begin, Fault("count"), folder / "count")
        assert counting.wrong == []
        plan = sample(counting.calls, CASES, f"{SEED} {name}")
    else:  # counting takes as long as a case
        plan = [one_kill(name, SEED)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = pool.map(lambda fault: case.run(scenario, begin, fault, folder / str(fault)), plan)
    wrong = [
        f"{result}\n  ./run torture kill-at {name} --quick --at {result.fault}" for result in results if result.wrong
    ]
    assert wrong == [], "\n".join([f"KILL_AT_SEED={SEED}", *wrong])


def test_what_was_not_synced_is_lost(forks: ForkServer, folder: Path) -> None:
    """The power fails right after an upload was committed: all is there, unless its bytes were not synced."""
    scenario = SCENARIOS["upload"]
    ready = case.prepared(scenario, Site(folder / "ready", forks))
    counting = case.run(scenario, ready, Fault("lose"), folder / "count")
    staged = next(sync for sync in counting.syncs if sync.place.startswith("intake.staging._finish"))
    accepted = next(sync for sync in counting.syncs if sync.place == "sqlite:wal" and sync.call > staged.call)
    whole = case.run(scenario, ready, Fault("lose", accepted.call + 1), folder / "whole")
    assert counting.wrong == whole.wrong == [] and whole.reached
    torn = case.run(scenario, ready, Fault("lose", accepted.call + 1, without=staged.place), folder / "torn")
    assert any("is gone or damaged" in one for one in torn.wrong), torn.wrong


def test_real_process_is_killed_at_the_call(folder: Path, forks: ForkServer) -> None:
    """Preloaded as the program starts, with real workers, whose own calls are not counted."""
    scenario = SCENARIOS["upload"]
    counting = case.run(scenario, case.prepared(scenario, Site(folder / "a", forks)), Fault("count"), folder / "b")
    durable = counted(counting.calls, "kill")
    assert {call.name for call in durable} >= {"fsync", "fdatasync", "rename", "unlink", "ftruncate", "pwrite"}
    number = next(call for call, at in enumerate(durable, 1) if at.name == "rename" and "_thumbnail" in at.path)

    site = Site(folder / "site", forks, "fresh")
    site.folder.mkdir()
    with suppress(Gone), case.Attempt(site, Fault("kill", number)).serve() as service:
        case.Attempt(site).ended(service, case.Attempt(site).upload(service, tiny()))
    assert service.process.wait(seconds(STOP_SECONDS)) == -signal.SIGKILL
    assert [call.outcome for call in site.calls()] == ["done"] * (number - 1) + ["kill"]


@pytest.mark.parametrize(("action", "number"), [("EIO", 5), ("ENOSPC", 40)])
def test_refused_call_fails_and_the_next_does_not(forks: ForkServer, folder: Path, action: Action, number: int) -> None:
    scenario, fault = SCENARIOS["first-start"], Fault(action, number)
    result = case.run(scenario, case.prepared(scenario, Site(folder / "ready", forks)), fault, folder / "case")
    outcomes = [call.outcome for call in result.calls]
    assert result.reached and outcomes[number - 1] == action and outcomes.count(action) == 1


def test_sample_has_each_action_and_each_kind_of_call() -> None:
    """And is the same for the same seed."""
    log = [Call(n, "pwrite", "/d/imgsvc.db-wal", "done") for n in range(1, 500)]
    calls = [*log, Call(500, "fsync", "/d/staging", "done"), Call(501, "rename", "/s/x_large.webp", "done")]
    plan = sample(calls, MANY, "seed")
    assert plan == sample(calls, MANY, "seed") != sample(calls, MANY, "another")
    assert {fault.action for fault in plan} == set(ACTIONS)
    assert {500, 501} <= {fault.number for fault in plan if fault.action == "kill"}


def test_sample_of_few_calls_has_each_once() -> None:
    calls = [Call(1, "fsync", "/d/jwt_secret", "done"), Call(2, "link", "/d/jwt_secret", "done")]
    plan = sample(calls, MANY, "seed")
    assert len(plan) == len(set(plan)) == 2 * len(ACTIONS)


def test_planted_fault_is_reported(forks: ForkServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scenario that loses what it was promised does not pass."""
    monkeypatch.setattr(case, "TIDY_SECONDS", 0.1)

    def loses(attempt: case.Attempt) -> None:
        with attempt.serve() as service:
            for _ in range(2):  # without any row the service would not start
                attempt.ended(service, attempt.upload(service, tiny()))
            case.stopped(attempt, service)
        with closing(sqlite3.connect(attempt.site.places.database)) as db, db:
            db.execute("DELETE FROM processing_jobs WHERE rowid = 1")

    scenario = case.Scenario("loses", loses)
    result = case.run(scenario, case.prepared(scenario, Site(folder / "ready", forks)), Fault("count"), folder / "case")
    text = "\n".join(result.wrong)
    assert "The receipt" in text and "no row names it" in text and "has no row" in text
