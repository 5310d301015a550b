"""The build of pillow-simd is chosen by what the processor answers, under a real emulator where there is one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imgsvc.imaging import simd
from tests.support.server_process import ROOT

QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
emulated = pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 is not installed")
FEATURES = {"core2duo": set(), "Nehalem": {"sse4_1"}, "Haswell": {"sse4_1", "avx2"}}


def prefix(folder: Path, built: str, *, fast: bool = False) -> Path:
    (folder / "simd").mkdir()
    (folder / "simd/build").write_text(f"{built}\n")
    if fast:
        (folder / "simd/avx2").mkdir()
    return folder


def under(processor: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert QEMU
    return subprocess.run(
        [QEMU, "-cpu", processor, sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )


def test_nothing_is_chosen_where_nothing_is_known_of_the_build(tmp_path: Path) -> None:
    before = list(sys.path)
    assert simd.choose(tmp_path) is None
    assert simd.choose(prefix(tmp_path, "none")) == "none"
    assert sys.path == before


def test_both_ways_of_asking_agree_on_this_machine() -> None:
    assert simd._read() == simd.processor_features()


@emulated
@pytest.mark.parametrize("processor", FEATURES)
def test_processor_is_asked_itself(processor: str) -> None:
    answer = under(processor, "-c", "from imgsvc.imaging import simd; print(sorted(simd.processor_features()))")
    assert answer.stdout.strip() == str(sorted(FEATURES[processor])), answer.stderr


CHOICES = [
    ("core2duo", "sse4_1", True, "no SSE4.1 (x86-64-v2)"),
    ("Nehalem", "sse4_1", True, "sse4_1 False"),
    ("Nehalem", "avx2", False, "no AVX2 (x86-64-v3)"),
    ("Haswell", "sse4_1", True, "avx2 True"),
    ("Haswell", "sse4_1", False, "sse4_1 False"),
    ("Haswell", "avx2", False, "avx2 False"),
]


@emulated
@pytest.mark.parametrize(("processor", "built", "fast", "expected"), CHOICES)
def test_best_build_that_runs_is_chosen(tmp_path: Path, processor: str, built: str, fast: bool, expected: str) -> None:
    place = prefix(tmp_path, built, fast=fast)
    code = (
        "import sys; from pathlib import Path; from imgsvc.imaging import simd\n"
        f"try: print(simd.choose(Path({str(place)!r})), sys.path[0].endswith('simd/avx2'))\n"
        "except simd.UnsuitableProcessor as error: print(error)"
    )
    answer = under(processor, "-c", code)
    assert expected in answer.stdout, answer.stderr


@emulated
def test_command_on_an_unsuitable_processor_ends_in_one_sentence(tmp_path: Path) -> None:
    place = prefix(tmp_path, "sse4_1")
    code = f"import sys; sys.prefix = {str(place)!r}; sys.argv = ['imgsvc', 'doctor']\n"
    answer = under("core2duo", "-c", code + "from imgsvc.cli.main import main; main()")
    assert (answer.returncode, answer.stdout) == (2, "")
    lines = [line for line in answer.stderr.splitlines() if not line.startswith("qemu")]
    assert len(lines) == 1 and "SSE4.1" in lines[0] and "SIMD=none" in lines[0], lines
