"""`./run torture walls [ATTACK …]`: what a decoder that a picture has taken over tries in a worker, and what stops it.

Each attack is tried in the child of a real lane: without the cage, with it, with Landlock held down to ABI 2 and left
out, and behind each wall alone, which names the walls that stop it. What a decoder leaves behind is tried in whole
services: as variants, and in the decoder of the next pictures.
"""

import argparse
import asyncio
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import structlog
from rich.console import Console
from rich.table import Table

from tests.support.attacks import ATTACKS
from tests.support.inside import ENDING, REACHING, THROUGH
from tests.support.taken_over import HARMLESS, Setting, aftermath, table

WIDTH = 150  # characters
WALLS = ("Landlock", "seccomp", "limits", "privileges")
SETTINGS = {
    "uncaged": Setting("off"),
    "caged": Setting(),
    "ABI 2": Setting(landlock_abi_at_most=2),
    "no Landlock": Setting(landlock_abi_at_most=0),
}
ALONE = {wall: Setting(walls=(wall,)) for wall in WALLS}
# What stops the attacks that do not go through without a cage either.
ALWAYS = {
    "hold a descriptor of another": "descriptors are closed",
    "find a secret in the environment": "environment of its own",
    "more memory": "memory ceiling",
    "spend all time": "deadline",
    "fail": "process of its own",
    "claim that the cage failed": "first byte of the answer",
}
SAYING = "answers are checked"
LEAVING = "files are read again"
SPOILT = "nothing: its own picture"
STAYING = "process of its own"
MISSING = "not available here"
TRIED = (*REACHING, *ATTACKS, *ENDING)
UPLOADS = 20  # after a decoder that stays
Outcomes = dict[str, dict[str, str]]


def stopped_by(attack: str, row: Mapping[str, str]) -> str:
    """The walls each of which stops the attack alone, or what stops it without the cage too.

    The memory ceiling is one of the limits and holds behind the other walls, too.
    """
    if row["uncaged"] == THROUGH:
        through = {wall for wall in WALLS if row[wall] == THROUGH or (row[wall] == "ENOMEM" and wall != "limits")}
        return ", ".join(wall for wall in WALLS if wall not in through)
    return ALWAYS.get(attack, SAYING if attack in ENDING else MISSING)


async def outcomes(folder: Path, attacks: tuple[str, ...] = TRIED) -> Outcomes:
    return await table(folder, SETTINGS | ALONE, attacks)


def held_by(row: Mapping[str, str]) -> str:
    """What keeps that which a decoder leaves behind from doing harm."""
    if HARMLESS in row.values():
        return "the cage" if row["uncaged"] == THROUGH else STAYING
    return LEAVING if row["uncaged"] == "worker_crashed" else SPOILT


async def print_tables(folder: Path, attacks: tuple[str, ...]) -> None:
    shown = Table("attack", *SETTINGS, "stopped by")
    for attack, row in (await outcomes(folder / "lanes", attacks or TRIED)).items():
        shown.add_row(attack, *(row[name] for name in SETTINGS), stopped_by(attack, row))
    Console(width=WIDTH).print(shown)
    if not attacks:
        left = Table("what is left behind", *SETTINGS, "stopped by")
        for attack, row in (await aftermath(folder / "services", SETTINGS, UPLOADS)).items():
            left.add_row(attack, *row.values(), held_by(row))
        Console(width=WIDTH).print(left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", choices=[[], *TRIED], metavar="ATTACK", help="in a lane; all without one")
    attacks = tuple(parser.parse_args().attacks)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(prefix="imgsvc-walls-") as name:
        for part in ("lanes", "services"):
            (Path(name) / part).mkdir()
        asyncio.run(print_tables(Path(name), attacks))


if __name__ == "__main__":
    main()
