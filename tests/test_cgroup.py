"""Limits of containers and units, as their files say them."""

from pathlib import Path

import pytest

from imgsvc.jobs.cgroup import memory_limit

MB = 1 << 20
NONE_V1 = 9_223_372_036_854_771_712


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/\n", {"memory.max": f"{512 * MB}\n"}, 512 * MB),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {}, None),
        ("", {}, None),
        ("0::/a.slice/b.service\n", {"a.slice/b.service/memory.max": f"{MB}\n"}, MB),
        ("0::/a.slice/b.service\n", {"a.slice/b.service/memory.max": "max", "a.slice/memory.max": "7"}, 7),
        ("0::/../../x\n", {"memory.max": "5\n"}, 5),
        ("0::/odd:name\n", {"odd:name/memory.max": "6\n"}, 6),
        ("4:memory:/box\n1:cpu:/z\n", {"memory/box/memory.limit_in_bytes": "9\n", "z/memory.max": "1"}, 9),
        ("4:cpu,memory:/not-there\n0::/\n", {"memory/memory.limit_in_bytes": "8\n"}, 8),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": f"{NONE_V1}\n"}, NONE_V1),
    ],
)
def test_lowest_limit(tmp_path: Path, own: str, files: dict[str, str], limit: int | None) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        file = tmp_path / "root" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert memory_limit(tmp_path / "own", tmp_path / "root") == limit
