"""Secrets that the service makes for itself at its first start. There is no default secret anywhere."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from ..settings import SettingsError
from ..settings.fields import MIN_SECRET_BYTES

SECRET_BYTES = 48


def own_secret(folder: Path, name: str) -> str:
    """The secret in `folder`/`name` (mode 0600), made now if there is none. Two processes get the same one."""
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
    """Write elsewhere, then link: whoever links first wins, and nobody ever reads half a secret."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")  # not the pid: threads make it at once too
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_urlsafe(SECRET_BYTES) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
