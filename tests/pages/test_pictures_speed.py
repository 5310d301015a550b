"""The page of pictures beside ten thousand images: few nodes, and short tasks while it is scrolled.

`./run bench pictures` measures it beside a hundred thousand.
"""

from collections.abc import Iterator

import pytest

from tests.support.browser import IN_BROWSER
from tests.support.dashboard_page import TOKEN
from tests.support.many_jobs import fill
from tests.support.scrolling import ROWS, scrolled, visitor
from tests.support.server_process import InlineServer, ServerProcess

pytestmark = [pytest.mark.process, *IN_BROWSER]
MOST_NODES, MOST_TASK_MS = 300, 50
COUNT_CANVASES = """const make = document.createElement.bind(document);
window.canvases = 0;
document.createElement = name => { window.canvases += name === 'canvas'; return make(name); };"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("archive")
    fill(folder / "data" / "imgsvc.db", 10_000)
    with InlineServer(folder, OPERATOR_TOKEN=TOKEN, LOG_LEVEL="ERROR") as server:
        server.leave_unchecked("its rows have no files")
        yield server


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
