"""A small task, and worker processes that do something else than they should."""

import textwrap
from pathlib import Path
from typing import Any

import pytest

from fixtures import make
from imgsvc.jobs.lanes.messages import Task
from tests.support.lanes import SMALL
from tests.support.render_task import render_task


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return render_task(tmp_path, make.jpeg(320, 200), SMALL)


@pytest.fixture
def instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let every worker run these lines before the first of its own, by a `sitecustomize` that no other process has.

    `warm` and `spawn_context` are the modules of these names.
    """
    folder = tmp_path / "customized"
    folder.mkdir()

    def install(lines: str) -> None:
        guard = "import sys\nif 'from imgsvc.jobs.lanes.spawn_context import' in str(sys.orig_argv):\n"
        guard += "    from imgsvc.jobs.lanes import spawn_context, warm\n"
        (folder / "sitecustomize.py").write_text(guard + textwrap.indent(textwrap.dedent(lines), "    "))
        monkeypatch.syspath_prepend(str(folder))

    return install
