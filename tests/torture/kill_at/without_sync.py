"""Each sync of the program left out in turn: what is lost with the page cache then must be noticed by a scenario."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.support.preload import Fault
from tests.torture.kill_at.case import Result
from tests.torture.kill_at.plan import numbers

EACH = "each"
# {part of a place's name: why it is there though no case notices when it is left out}. By reading, not by a case.
WHY = {
    "put_aside": "the upload has synced the bytes, and the next start sets aside again what it finds in both folders",
    "hard_links._compare": "for files that were put back by hand, which no scenario has",
    "doctor": "a probe whose result is not kept",
    "revocations.append:128": "the start and the restore, which make the file, sync its folder again before anything"
    " is confirmed; it is for a file that an operator removes meanwhile",
    "sqlite:folder": "SQLite's own; the program syncs the folder too, when it has written the service's id",
    "sqlite:journal": "SQLite's own; the database has a write-ahead log",
}


@dataclass(slots=True)
class Tried:
    """One place that syncs."""

    cases: int = 0
    caught: Result | None = None

    def __str__(self) -> str:
        if self.caught is None:
            return f"not noticed in {self.cases} cases"
        return f"{self.caught.scenario} {self.caught.fault.action}@{self.caught.fault.number}: {self.caught.wrong[0]}"


def places(counting: Result) -> list[str]:
    """In the order in which they come."""
    return list(dict.fromkeys(sync.place for sync in counting.syncs))


def faults_without(counting: Result, place: str, most: int) -> Iterator[Fault]:
    """The end first, after which all that was promised is due, then evenly back to the first sync of the place."""
    first = min(sync.call for sync in counting.syncs if sync.place == place)
    later = [number for number in numbers(counting.calls, "lose") if number > first][::-1]
    step = max(1, -(-len(later) // most)) if most else 1
    for number in later[::step]:
        yield Fault("lose", number, without=place)


def try_each(
    counting: Result, chosen: Sequence[str], found: dict[str, Tried], most: int, one: Callable[[Fault], Result]
) -> None:
    """Note in `found` what each place's absence comes to, for those that no other scenario has noticed."""
    for place in places(counting):
        tried = found.setdefault(place, Tried())
        if tried.caught or not (EACH in chosen or place in chosen):
            continue
        for fault in faults_without(counting, place, most):
            result = one(fault)
            tried.cases += 1
            if result.wrong:
                tried.caught = result
                break
        print(f"{counting.scenario} without {place}: {tried}", flush=True)


def reason(place: str) -> str:
    return next((why for part, why in WHY.items() if part in place), "")
