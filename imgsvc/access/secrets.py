"""Secrets that the service generates at its first start. There are no default secrets."""

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from ..settings import SettingsError
from ..settings.fields import MIN_SECRET_BYTES
from ..storage.durable_files import make_root, sync_folder

SECRET_BYTES = 48
DRAFT = re.compile(r"\.\w+\.[0-9a-f]{16}")


def own_secret(folder: Path, name: str) -> str:
    """The secret in `folder`/`name` (mode 0600), created if there is none. Concurrent processes get the same one."""
    path = folder / name
    make_root(folder, 0o700)
    with suppress(FileExistsError):
        _create(path)
    secret = path.read_text(encoding="ascii", errors="replace").strip()
    if len(secret) < MIN_SECRET_BYTES:
        raise SettingsError(
            f"{path} has {len(secret)} bytes; at least {MIN_SECRET_BYTES} are needed (remove the file to get a new one)"
        )
    return secret


def drop_drafts(folder: Path) -> None:
    """Remove the drafts of killed processes. A process that creates a secret meanwhile writes its draft again."""
    for path in folder.iterdir():
        if DRAFT.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _create(path: Path) -> None:
    """Write a draft, then link it: the first link wins, and no process ever reads half a secret."""
    while not path.exists():
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")  # not the pid: threads may do this too
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                stream.write(secrets.token_urlsafe(SECRET_BYTES) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            with suppress(FileNotFoundError):  # a start took the draft for a leftover
                os.link(draft, path)
                sync_folder(path.parent)
        finally:
            draft.unlink(missing_ok=True)
