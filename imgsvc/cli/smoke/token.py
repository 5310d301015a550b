"""Creates a token for an instance on this machine, with its own secret."""

from urllib.parse import urlsplit

from ...access.permissions import DELETE, READ, UPLOAD
from ...access.tokens import SECRET_FILE, Tokens
from ...settings import Settings
from ...settings.hosts import is_loopback

TTL_SECONDS = 120
USER = "smoke"
PERMISSIONS = (UPLOAD, READ, DELETE)


class NoToken(Exception):
    """No token can be created here. The message gives the reason."""


def own_token(settings: Settings, url: str) -> str:
    """Create a token. Raises NoToken, also if `url` is not this machine: no other host may receive a valid token."""
    if not _ours(settings, url):
        raise NoToken("none is created for another machine")
    if not settings.auth.own_keys:
        raise NoToken(f"with {settings.auth.jwt_algorithm} only your issuer can create one")
    secret = settings.data / SECRET_FILE
    if not settings.auth.jwt_secret_key.get_secret_value() and not secret.is_file():
        raise NoToken(f"there is no secret in {settings.data}")
    return Tokens.of(settings).issue(USER, permissions=PERMISSIONS, ttl_seconds=TTL_SECONDS)


def _ours(settings: Settings, url: str) -> bool:
    public = settings.service.public_url
    if public and f"{url.rstrip('/')}/".startswith(f"{public}/"):
        return True
    return is_loopback(urlsplit(url).hostname or "")
