"""Every attack, in a child of its own, behind each set of walls.

`python -m tests.support.caged FOLDER` writes {attack: {walls: outcome}} as JSON. A process of its own, since a cage is
built and entered by processes with one thread.
"""

import errno
import json
import os
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from imgsvc.jobs.lanes import process_limits
from imgsvc.jobs.lanes.cage import Cage
from imgsvc.jobs.lanes.landlock import usable_abi
from imgsvc.jobs.lanes.seccomp import SeccompFilter
from imgsvc.jobs.lanes.walls import walls
from tests.support.attacks import ATTACKS, FILE, MEMORY, Attack, Victims, outcome, victims

Enter = Callable[[Collection[int]], None]


def enter(cage: Cage) -> Enter:
    return lambda keep: cage.enter(keep, memory_bytes=MEMORY, file_bytes=FILE)


def alone(*names: str) -> Enter:
    """Only the walls of these names, and what none is put up without."""
    abi, seccomp_filter, parent = usable_abi(), SeccompFilter.build(), os.getpid()

    def put_up(keep: Collection[int]) -> None:
        process_limits.tie_to(parent)
        if "limits" in names:
            process_limits.limit_growth(MEMORY, shared=True)
        for wall in walls(abi, seccomp_filter, FILE):
            if wall.name in names:
                wall.put_up()

    return put_up


def attempt(attack: Attack, there: Victims, confine: Enter) -> str:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            confine({write, there.output})
            try:
                attack(there)
                words = "went through"
            except OSError as error:
                words = errno.errorcode[error.errno or 0]
            except MemoryError:
                words = "ENOMEM"
            os.write(write, words.encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    report = os.read(read, 4096)
    os.close(read)
    return outcome(os.waitpid(child, 0)[1], report)


def table(folder: Path, modes: Mapping[str, Enter]) -> dict[str, dict[str, str]]:
    """Each attack finds its victims unharmed."""
    found: dict[str, dict[str, str]] = {}
    for name, attack in ATTACKS.items():
        for mode, confine in modes.items():
            place = folder / f"{len(found)}-{mode}"
            place.mkdir()
            with victims(place) as there:
                found.setdefault(name, {})[mode] = attempt(attack, there, confine)
    return found


def main(folder: Path) -> None:
    modes = {
        "free": lambda _: None,
        "caged": enter(Cage.build("best")),
        "ABI 2": enter(Cage.build("best", landlock_abi_at_most=2)),
        "no Landlock": enter(Cage.build("best", landlock_abi_at_most=0)),
        "Landlock": alone("Landlock"),
        "limits": alone("limits"),
        "seccomp": alone("seccomp"),
    }
    json.dump(table(folder, modes), sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
