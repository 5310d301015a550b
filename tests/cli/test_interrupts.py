"""Ctrl-C while a maintenance task is started in the service."""

import os
import signal
from collections.abc import Iterator

import pytest

from imgsvc.cli.maintenance_online import interrupts_later


@pytest.fixture
def handled() -> Iterator[None]:
    """Ctrl-C is handled, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("handled")
def test_answer_that_names_the_task_is_read_before_ctrl_c_takes_effect() -> None:
    begun = None
    with pytest.raises(KeyboardInterrupt), interrupts_later():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        begun = "task"
    assert begun == "task"
