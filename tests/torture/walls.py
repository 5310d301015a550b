"""`./run torture walls [ATTACK …]`: what a decoder that a picture has taken over tries in a worker, and what stops it.

Each attack is tried in the child of a real lane: without the cage, with it, with Landlock held down to ABI 2 and left
out, and behind each wall alone, which names the walls that stop it.
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
from tests.support.taken_over import Setting, table

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
MISSING = "not available here"
TRIED = (*REACHING, *ATTACKS, *ENDING)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help="its name in the table; all without one")
    attacks = tuple(parser.parse_args().attacks) or TRIED
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(prefix="imgsvc-walls-") as folder:
        found = asyncio.run(outcomes(Path(folder), attacks))
    shown = Table("attack", *SETTINGS, "stopped by")
    for attack, row in found.items():
        shown.add_row(attack, *(row[name] for name in SETTINGS), stopped_by(attack, row))
    Console(width=WIDTH).print(shown)


if __name__ == "__main__":
    main()
