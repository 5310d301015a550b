"""Several of the largest pictures at once: `./run bench largest` sends thirty, of 50 megapixels."""

from pathlib import Path

import pytest

from tests.bench.largest import measured

pytestmark = pytest.mark.process


def test_workers_stay_within_their_memory(tmp_path: Path) -> None:
    found = measured(tmp_path, megapixels=1, memory_mb=260, each=1)
    assert found.within and found.pictures >= 4, found
    assert found.peak_pss_mb > 60, "nothing was measured"
