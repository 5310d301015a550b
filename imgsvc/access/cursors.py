"""Cursors of lists: encrypted positions, since a list must not name an image that its reader may not see.

A page ends where the search for it ended, which may be at another user's image, and an image's ID is all that its
bytes take. Synthetic initialization vector (RFC 5297's construction, with HMAC-SHA256 as the pseudo-random function):
the tag over reader, filters and position is the vector, so a cursor is good for the same reader and filters only, and
the same position gives the same cursor.
"""

import base64
import binascii
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from uuid import UUID

KEY_FILE = "cursor_key"
TAG_BYTES = 12
TIME_BYTES, ID_BYTES = 8, 16  # microseconds since 1970, and a UUID
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CursorInvalid(Exception):
    """The cursor is not ours, or of another reader or other filters."""


class Cursors:
    def __init__(self, key: str) -> None:
        self._sealing, self._hiding = (hmac.digest(key.encode(), use, hashlib.sha256) for use in (b"seal", b"hide"))

    def of(self, created_at: str, image_id: str, context: str) -> str:
        """The cursor of a position in the list that `context` names: its reader and filters."""
        microseconds = (datetime.fromisoformat(created_at) - EPOCH) // timedelta(microseconds=1)
        position = microseconds.to_bytes(TIME_BYTES, "big") + UUID(image_id).bytes
        tag = self._tag(position, context)
        return base64.urlsafe_b64encode(tag + self._hidden(position, tag)).decode()

    def position(self, cursor: str, context: str) -> tuple[str, str]:
        """(created_at as RFC 3339, image ID) of a cursor. Raises CursorInvalid."""
        try:
            sent = base64.b64decode(cursor.encode("ascii"), b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise CursorInvalid from None
        tag, position = sent[:TAG_BYTES], self._hidden(sent[TAG_BYTES:], sent[:TAG_BYTES])
        if len(position) != TIME_BYTES + ID_BYTES or not hmac.compare_digest(tag, self._tag(position, context)):
            raise CursorInvalid
        moment = EPOCH + timedelta(microseconds=int.from_bytes(position[:TIME_BYTES], "big"))
        return moment.isoformat(timespec="microseconds"), str(UUID(bytes=position[TIME_BYTES:]))

    def _tag(self, position: bytes, context: str) -> bytes:
        return hmac.digest(self._sealing, position + context.encode(), hashlib.sha256)[:TAG_BYTES]

    def _hidden(self, position: bytes, tag: bytes) -> bytes:
        """The position, encrypted or decrypted: shorter than one digest, which is its key stream."""
        return bytes(
            one ^ other for one, other in zip(position, hmac.digest(self._hiding, tag, hashlib.sha256), strict=False)
        )
