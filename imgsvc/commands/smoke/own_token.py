"""A token for an instance on this very machine, made with its own secret."""

import ipaddress
from urllib.parse import urlsplit

from ...access.tokens import SECRET_FILE, Tokens
from ...settings import Settings

TTL_SECONDS = 120
USER = "smoke"
PERMISSIONS = ("image:upload", "image:read", "image:delete")


def own_token(settings: Settings, url: str) -> str | None:
    """None where there is no secret, or where `url` is somebody else: nobody else gets a token that is good here."""
    secret = settings.data / SECRET_FILE
    known = settings.auth.jwt_secret_key.get_secret_value() or secret.is_file()
    if not known or not _ours(settings, url):
        return None
    return Tokens.of(settings).issue(USER, permissions=PERMISSIONS, ttl_seconds=TTL_SECONDS)


def _ours(settings: Settings, url: str) -> bool:
    public = settings.service.public_url
    if public and f"{url.rstrip('/')}/".startswith(f"{public}/"):
        return True
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
