"""A second backend for tests. Alone in its module: a process that begins with it need not load the tests' own parts."""

from imgsvc.storage.local import LocalStorage


class Other(LocalStorage):
    """Another folder, as another backend."""

    name = "other"
