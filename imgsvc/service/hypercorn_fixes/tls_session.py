"""TLS of one connection, above a plain transport: bytes in, bytes out, no socket.

In the place of the event loop's own. uvloop's allocates 256 KB for each connection, and keeps buffers as large as the
largest burst that it has received: 0.6 MB for as long as a connection is open that has sent a body once. Its write
limits count only what is not yet encrypted, so that `drain` does not wait for the client.
"""

import ssl
from contextlib import suppress

RECORD_BYTES = 16 * 1024  # of plain text, the largest (RFC 8446 section 5.1)


class TlsServer:
    """What the sessions of one event loop share: OpenSSL's buffers, which stay as large as the most they have held.

    They are empty between two calls of any session.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()


class TlsSession:
    """The server's side of one connection. What `to_send` returns after a call belongs to the client."""

    def __init__(self, server: TlsServer) -> None:
        self._server = server
        self._session = server.context.wrap_bio(server.incoming, server.outgoing, server_side=True)
        self._to_send = b""
        self._is_open = False
        self.ended = False  # by the client's close_notify

    def decrypted(self, received: bytes) -> bytes:
        """What the client says in these bytes, none while they are of the handshake. Raises ssl.SSLError."""
        self._server.incoming.write(received)
        plain: list[bytes] = []
        try:
            with suppress(ssl.SSLWantReadError):  # the session itself keeps a record that is not complete
                self._read_into(plain)
        finally:
            self._server.incoming.read()  # what comes behind an end or an error
            self._to_send += self._server.outgoing.read()
        return plain[0] if len(plain) == 1 else b"".join(plain)

    def _read_into(self, plain: list[bytes]) -> None:
        if not self._is_open:
            self._session.do_handshake()
            self._is_open = True
        while not self.ended and (self._server.incoming.pending or self._session.pending()):
            piece = self._session.read(RECORD_BYTES)
            plain.append(piece)
            self.ended = not piece

    def encrypted(self, data: bytes | memoryview) -> bytes:
        """The records of these bytes. Raises ssl.SSLError if the session has ended."""
        view = memoryview(data)
        try:
            for start in range(0, len(data), RECORD_BYTES):
                self._session.write(view[start : start + RECORD_BYTES])
        finally:
            self._to_send += self._server.outgoing.read()
        return self.to_send()

    def to_send(self) -> bytes:
        """What TLS itself has to say: of the handshake, new keys, an alert."""
        waiting, self._to_send = self._to_send, b""
        return waiting

    def end(self) -> bytes:
        """The end of our side (close_notify), so that the client knows that nothing is missing."""
        if self._is_open:
            with suppress(ssl.SSLError):  # the client's own end is not waited for
                self._session.unwrap()
        self._to_send += self._server.outgoing.read()
        return self.to_send()
