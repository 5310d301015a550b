"""Memory that is free again, and goes back to the system."""

import subprocess
import sys

CHURN = """
import sys
from pathlib import PurePath

from imgsvc.jobs.lanes.libc import return_large_blocks

def anonymous_mb():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024

return_large_blocks()
kept = [sys.intern(f"name {number}") for number in range(20_000)]  # as many as a service has
sizes, between = [], []
for number in range(300_000):
    PurePath(f"staging/{number}")
    if number % 100 == 0:  # something small that stays for a while
        between.append(bytearray(600 + number % 2000))
        del between[: len(between) - 500]
    if number % 10_000 == 0:
        sizes.append(anonymous_mb())
print(max(sizes[10:]) - sizes[10])
"""


def test_names_of_files_leave_nothing_in_the_heap() -> None:
    """Each part of a path is interned for a while: the table of such strings is made anew again and again."""
    found = subprocess.run([sys.executable, "-c", CHURN], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 1  # 3.7 MB without
