"""How malloc gets its memory in a process that decodes pictures: tunables of the GNU C library, which others ignore.

Each picture is decoded in a new process, which gets every page of its pixels again: 4 KB, filled with zeros, at a page
fault each. Larger pages, and pages that are used twice, make these fewer. The names are those of the library's manual,
"Memory Allocation Tunables".
"""

TUNABLES = "GLIBC_TUNABLES"  # the variable that has them, from the start of a process on
LARGE_PAGES = "glibc.malloc.hugetlb=1"  # pages of 2 MB for large blocks, and so for ours (from glibc 2.35 on)
# Blocks of up to 32 MB, the most that it takes, come from one heap, so that one step uses the pages of the one before
# it. The heap grows by 4 MB at least, and shrinks when more than 64 MB are free at its end.
HEAP = "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=67108864:glibc.malloc.top_pad=4194304"


def tunables(*, large_pages: bool) -> str:
    """The value of the variable."""
    return f"{LARGE_PAGES}:{HEAP}" if large_pages else HEAP
