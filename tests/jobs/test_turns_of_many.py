"""A small sample of the order of turns that `./run torture full` compares with a model's."""

from pathlib import Path

import anyio

from tests.support.many_jobs import fill
from tests.torture.full.turns import differences


async def test_order_of_turns_is_the_models(tmp_path: Path) -> None:
    assert await differences(tmp_path / "empty", 150, 8, "sample") == 0


def test_order_of_turns_beside_completed_jobs(tmp_path: Path) -> None:
    fill(tmp_path / "db", 500, only_completed=True)
    assert anyio.run(differences, tmp_path / "db", 100, 8, "sample") == 0
