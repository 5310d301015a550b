"""Which faults a scenario is tried with: all of them, or a sample that has each kind of call in it."""

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from tests.support.preload import COUNTED, Action, Call, Fault

ACTIONS: tuple[Action, ...] = ("kill", "EIO", "ENOSPC")
TIMES: dict[Action, tuple[int, ...]] = {
    "count": (1,),
    "kill": (1,),
    "EIO": (1,),
    "ENOSPC": (6,),  # a disk stays full
    "lose": (1,),
}
SYNCS = ("fsync", "fdatasync")
IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,}|\d{8}T[\d.]+")


def every(calls: Sequence[Call], actions: Sequence[Action] = ACTIONS) -> Iterator[Fault]:
    """Each call with each action, in order. `calls` are those of a run in which nothing failed."""
    for action in actions:
        for number in numbers(calls, action):
            for times in TIMES[action]:
                yield Fault(action, number, times)


def numbers(calls: Sequence[Call], action: Action) -> Sequence[int]:
    """Where this action makes a difference. Between two syncs the disk stays as it is while more is promised: the page
    cache is lost right before each sync, and after the last call."""
    durable = counted(calls, action)
    if action != "lose":
        return range(1, len(durable) + 1)
    return [*(number for number, call in enumerate(durable, 1) if call.name in SYNCS), len(durable) + 1]


def sample(calls: Sequence[Call], size: int, seed: str, actions: Sequence[Action] = ACTIONS) -> list[Fault]:
    """So many faults, half of them kills from four on, and of each action as many kinds of calls as there are.

    A kind is a call on files of one sort: a transaction has dozens of writes to the log, which can't be
    distinguished, and one synchronisation.
    """
    chance = random.Random(seed)
    if not calls:
        return []
    turns = (*actions, actions[0])
    kinds = {action: _shuffled_kinds(counted(calls, action), chance) for action in actions}
    found = []
    for turn in range(size):
        action = turns[turn % len(turns)]
        if not kinds[action]:
            continue
        numbers = kinds[action].pop(0)
        found.append(Fault(action, chance.choice(numbers), chance.choice(TIMES[action])))
        kinds[action].append(numbers)
    return list(dict.fromkeys(found))  # where there are fewer calls than cases


def counted(calls: Sequence[Call], action: Action) -> list[Call]:
    """The calls that count for this action: the Nth of them is its number N."""
    return [call for call in calls if call.name in COUNTED[action]]


def _shuffled_kinds(calls: Sequence[Call], chance: random.Random) -> list[list[int]]:
    kinds: defaultdict[str, list[int]] = defaultdict(list)
    for number, call in enumerate(calls, start=1):
        kinds[f"{call.name} {IDS.sub('*', call.path)}"].append(number)
    found = list(kinds.values())
    chance.shuffle(found)
    return found
