"""Warm processes that run a line of a test's before anything else, and find its modules."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def patched_workers(folder: Path, code: str) -> Iterator[None]:
    """Within this context each warm process that starts executes the code first.

    By a `sitecustomize` in `folder`, which is made, on its path. It does nothing in any other process.
    """
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(
        f"import sys\nif any('spawn_context' in word for word in sys.orig_argv):\n    exec({code!r})\n"
    )
    before = sys.path.copy()
    sys.path[:0] = [str(folder), str(Path(__file__).parents[2])]
    try:
        yield
    finally:
        sys.path[:] = before
