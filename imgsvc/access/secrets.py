"""Secrets that the service generates at its first start. There are no default secrets."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from ..settings import SettingsError
from ..settings.fields import MIN_SECRET_BYTES

SECRET_BYTES = 48


def own_secret(folder: Path, name: str) -> str:
    """The secret in `folder`/`name` (mode 0600), created if there is none. Concurrent processes get the same one."""
    path = folder / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        _create(path)
    secret = path.read_text(encoding="ascii", errors="replace").strip()
    if len(secret) < MIN_SECRET_BYTES:
        raise SettingsError(
            f"{path} has {len(secret)} bytes; at least {MIN_SECRET_BYTES} are needed (remove the file to get a new one)"
        )
    return secret


def _create(path: Path) -> None:
    """Write a draft, then link it: the first link wins, and no process ever reads half a secret."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")  # not the pid: threads may do this at once
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_urlsafe(SECRET_BYTES) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
