"""Checks the secrets: long, random, and not readable by others."""

import stat
from collections.abc import Iterator
from pathlib import Path

from ...access.cursors import KEY_FILE as CURSOR_KEY_FILE
from ...access.operator_auth import TOKEN_FILE
from ...access.signing import KEY_FILE
from ...access.tokens import SECRET_FILE
from ...settings import Settings, all_settings
from .finding import Finding, warning, well, wrong

FEW_CHARACTERS = 10  # different ones; 32 random bytes in hexadecimal have about 14
MADE_UP = ("changeme", "change-me", "secret", "password", "example", "your-", "0123456789", "abcdefgh", "qwerty")


def secrets(settings: Settings) -> Iterator[Finding]:
    found = [*_configured(settings), *_files(settings)]
    yield from found
    if not found:
        yield well("all look random, and none can be read by others")


def _configured(settings: Settings) -> Iterator[Finding]:
    values = settings.model_dump()
    seen: dict[str, str] = {}
    for one in sorted(all_settings(), key=lambda one: (one.section, one.field)):
        text = values[one.section][one.field].get_secret_value() if one.secret else ""
        if not text:
            continue
        name = one.environment
        if len(set(text)) < FEW_CHARACTERS or any(word in text.lower() for word in MADE_UP):
            yield wrong(f"{name} does not look random", "use a random one: openssl rand -base64 48")
        if text in seen:
            yield wrong(f"{name} is the same as {seen[text]}", "use different ones: anyone who has one has both")
        seen[text] = name


def _files(settings: Settings) -> Iterator[Finding]:
    data = settings.data
    if data.is_dir() and _others(data) & stat.S_IRWXO:
        yield wrong(f"every user of this machine can read {data}", f"chmod 700 {data}")
    for file in (data / SECRET_FILE, data / TOKEN_FILE, data / KEY_FILE, data / CURSOR_KEY_FILE):
        if file.is_file() and _others(file):
            yield wrong(
                f"{file} can be read by others", f"chmod 600 {file}, and remove it to get a new one if they did"
            )
    if settings.database.path.is_file() and _others(settings.database.path):
        yield warning("the database names users, and others can read it", f"chmod 600 {settings.database.path}")
    for file in (Path(".env"), Path(settings.server.keyfile)):
        if file.is_file() and _others(file) & stat.S_IRWXO:
            yield wrong(f"{file} can be read by every user of this machine", f"chmod 600 {file}")


def _others(path: Path) -> int:
    """The permissions of users other than the owner."""
    return path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
