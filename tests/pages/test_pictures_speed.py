"""The page of pictures beside a thousand images has few nodes while it is scrolled.

`./run torture` scrolls further, beside ten thousand, and measures the tasks; `./run bench pictures` beside a hundred
thousand.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import IN_BROWSER
from tests.support.dashboard_page import TOKEN
from tests.support.many_jobs import fill
from tests.support.scrolling import ROWS, SCROLL, first_grid_ms, scrolled, visitor
from tests.support.server_process import InlineServer, ServerProcess

pytestmark = [pytest.mark.process, *IN_BROWSER]
MOST_NODES, MOST_TASK_MS = 300, 50
SOME_ROWS, SOME_NODES = 40, 150
COUNT_CANVASES = """const make = document.createElement.bind(document);
window.canvases = 0;
document.createElement = name => { window.canvases += name === 'canvas'; return make(name); };"""


@pytest.fixture
def archive(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A service with so many images."""
    fill(tmp_path / "data" / "imgsvc.db", request.param)
    with InlineServer(tmp_path, OPERATOR_TOKEN=TOKEN, LOG_LEVEL="ERROR") as server:
        server.leave_unchecked("its rows have no files")
        yield server


@pytest.mark.parametrize("archive", [1_000], indirect=True)
async def test_scrolling_takes_few_nodes(archive: ServerProcess) -> None:
    async with visitor(archive) as page:
        await page.add_init_script(COUNT_CANVASES)
        await first_grid_ms(page, archive)
        found = await page.evaluate(SCROLL, SOME_ROWS)
        assert 0 < await page.evaluate("window.canvases") <= SOME_NODES
    assert found["seen"] >= SOME_ROWS
    assert found["most"] <= SOME_NODES, found


@pytest.mark.torture
@pytest.mark.parametrize("archive", [10_000], indirect=True)
async def test_scrolling_takes_few_nodes_and_short_tasks(archive: ServerProcess) -> None:
    """Processor time, the better of two runs: on a busy machine a task is interrupted, and caches are cold.

    Canvases are used again: the browser ends those that became garbage in one long pause.
    """
    async with visitor(archive) as page:
        await page.add_init_script(COUNT_CANVASES)
        found = [await scrolled(page, archive) for _ in range(2)]
        assert 0 < await page.evaluate("window.canvases") <= MOST_NODES
    assert all(one.rows >= ROWS for one in found)
    assert max(one.image_nodes for one in found) <= MOST_NODES
    assert min(one.busy_ms for one in found) < MOST_TASK_MS
