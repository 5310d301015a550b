"""A token for an instance on this very machine, made with its own secret."""

from urllib.parse import urlsplit

from ...access.permissions import DELETE, READ, UPLOAD
from ...access.tokens import SECRET_FILE, Tokens
from ...settings import Settings
from ...settings.hosts import is_loopback

TTL_SECONDS = 120
USER = "smoke"
PERMISSIONS = (UPLOAD, READ, DELETE)


class NoToken(Exception):
    """None can be made here; the message says why."""


def own_token(settings: Settings, url: str) -> str:
    """Raises NoToken. Where `url` is somebody else none is made: nobody else gets a token that is good here."""
    if not _ours(settings, url):
        raise NoToken("none is made for another machine")
    if not settings.auth.own_keys:
        raise NoToken(f"with {settings.auth.jwt_algorithm} only your issuer can make one")
    secret = settings.data / SECRET_FILE
    if not settings.auth.jwt_secret_key.get_secret_value() and not secret.is_file():
        raise NoToken(f"there is no secret in {settings.data} to make one with")
    return Tokens.of(settings).issue(USER, permissions=PERMISSIONS, ttl_seconds=TTL_SECONDS)


def _ours(settings: Settings, url: str) -> bool:
    public = settings.service.public_url
    if public and f"{url.rstrip('/')}/".startswith(f"{public}/"):
        return True
    return is_loopback(urlsplit(url).hostname or "")
