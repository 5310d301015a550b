"""TLS of one connection, above a plain transport: bytes in, bytes out, no socket.

In the place of the event loop's own. uvloop's allocates 256 KB for each connection, and keeps buffers as large as the
largest burst that it has received: 0.6 MB for as long as a connection is open that has sent a body once. Its write
limits count only what is not yet encrypted, so that `drain` does not wait for the client.
"""

import ssl
from contextlib import suppress

RECORD_BYTES = 4 * 1024  # of plain text; OpenSSL keeps a buffer of the largest for as long as the connection is open
FED_BYTES = 8 * 1024  # given to OpenSSL at a time, for the same reason
LARGEST_RECORD_BYTES = 16 * 1024  # that a client may send (RFC 8446 section 5.1)


class TlsSession:
    """The server's side. What `to_send` returns after a call belongs to the client."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_open = False
        self.ended = False  # by the client's close_notify

    def decrypted(self, received: bytes) -> bytes:
        """What the client says in these bytes, none while they are of the handshake. Raises ssl.SSLError."""
        view = memoryview(received)
        plain: list[bytes] = []
        for start in range(0, len(received), FED_BYTES):
            self._incoming.write(view[start : start + FED_BYTES])
            with suppress(ssl.SSLWantReadError):
                self._read_into(plain)
        return plain[0] if len(plain) == 1 else b"".join(plain)

    def _read_into(self, plain: list[bytes]) -> None:
        if not self._is_open:
            self._session.do_handshake()
            self._is_open = True
        while not self.ended and (self._incoming.pending or self._session.pending()):
            said = self._session.read(LARGEST_RECORD_BYTES)
            plain.append(said)
            self.ended = not said

    def encrypted(self, data: bytes | memoryview) -> list[bytes]:
        """The records of these bytes. Raises ssl.SSLError if the session has ended."""
        view, records = memoryview(data), []
        for start in range(0, len(data), RECORD_BYTES):
            self._session.write(view[start : start + RECORD_BYTES])
            records.append(self._outgoing.read())
        return records

    def to_send(self) -> bytes:
        """What TLS itself has to say: of the handshake, new keys, an alert."""
        return self._outgoing.read()

    def end(self) -> bytes:
        """The end of our side (close_notify), so that the client knows that nothing is missing."""
        if self._is_open:
            with suppress(ssl.SSLError):  # the client's own end is not waited for
                self._session.unwrap()
        return self._outgoing.read()
