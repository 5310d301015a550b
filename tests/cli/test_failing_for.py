"""Errors that a command foresees come out as its one line, however deep in task groups they were raised."""

import asyncio

import anyio
import pytest

from imgsvc.cli.errors import CommandFailed, failing_for


async def in_task_groups(depth: int, *errors: Exception) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async with anyio.create_task_group() as group:
        if depth > 1:
            await in_task_groups(depth - 1, *errors)
        else:
            for error in errors:
                group.start_soon(fail, error)


@pytest.mark.parametrize("depth", [1, 3])
def test_foreseen_error_of_a_task_group(depth: int) -> None:
    with pytest.raises(CommandFailed, match=r"^the disk is full$"), failing_for(OSError):
        asyncio.run(in_task_groups(depth, OSError("the disk is full")))


def test_foreseen_error_that_is_alone() -> None:
    with pytest.raises(CommandFailed, match=r"^the disk is full$"), failing_for(OSError, KeyError):
        raise OSError("the disk is full")


def test_group_with_an_error_that_nobody_foresaw_is_left_whole() -> None:
    with pytest.raises(BaseExceptionGroup) as found, failing_for(OSError):
        asyncio.run(in_task_groups(2, OSError("the disk is full"), ZeroDivisionError()))
    assert found.value.subgroup(ZeroDivisionError) and found.value.subgroup(OSError)
