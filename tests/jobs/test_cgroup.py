"""Limits of containers and units, as their files say them."""

from pathlib import Path

import pytest

from imgsvc.jobs.lanes.cgroup import memory_limit, processor_limit

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
    assert memory_limit(*written(tmp_path, own, files)) == limit


def written(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    (folder / "own").write_text(own)
    for name, text in files.items():
        file = folder / "root" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / "own", folder / "root"


def v1(quota: str, period: str, folder: str = "cpu") -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": period}


@pytest.mark.parametrize(
    ("own", "files", "processors"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
        ("0::/\n", {"cpu.max": "100000 0\n"}, None),
        ("0::/\n", {}, None),
        ("0::/a.slice/b\n", {"a.slice/b/cpu.max": "max 100000", "a.slice/cpu.max": "50000 100000"}, 0.5),
        ("0::/a.slice/b\n", {"a.slice/b/cpu.max": "150000 100000", "a.slice/cpu.max": "300000 100000"}, 1.5),
        ("3:cpu,cpuacct:/box\n", v1("250000\n", "100000\n", "cpu/box"), 2.5),
        ("3:cpu,cpuacct:/box\n", v1("300000\n", "100000\n", "cpu,cpuacct/box"), 3),
        ("3:cpu,cpuacct:/not-there\n", v1("100000\n", "50000\n"), 2),
        ("3:cpu:/\n", v1("-1\n", "100000\n"), None),
        ("3:cpuset:/\n", v1("100000\n", "100000\n"), None),
    ],
)
def test_lowest_quota(tmp_path: Path, own: str, files: dict[str, str], processors: float | None) -> None:
    assert processor_limit(*written(tmp_path, own, files)) == processors
