"""API keys and upload tickets: random texts that the service issues once, and of which it keeps only the SHA-256.

256 random bits need neither salt nor a slow hash: they can't be guessed, and a digest can't be reversed.
"""

import hashlib
import re
import secrets

KEY_PREFIX, TICKET_PREFIX = "imgk_", "imgt_"
SECRET_BYTES = 32
ISSUED = re.compile(r"img([kt])_[A-Za-z0-9_-]{8,}")


def new_secret(prefix: str) -> str:
    return prefix + secrets.token_urlsafe(SECRET_BYTES)


def digest_of(secret: str) -> bytes:
    """What is kept of a secret, and what it is found by."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def redacted(text: str) -> str:
    """The text without issued secrets, for logs: `imgk_…`, and of a ticket `…`."""
    return ISSUED.sub(lambda found: "imgk_…" if found[1] == "k" else "…", text) if "img" in text else text
