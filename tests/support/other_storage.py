"""A second backend for tests. Alone in its module: a process that begins with it need not load the tests' own parts."""

from pathlib import Path

from imgsvc.storage.local import LocalStorage


class Other(LocalStorage):
    """Another folder, as another backend."""

    name = "other"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        root.mkdir(parents=True, exist_ok=True)
