"""TLS without a socket: what both sides say is handed over by the test."""

import ssl
from pathlib import Path

import pytest

from imgsvc.service.hypercorn_fixes.tls_session import TlsServer, TlsSession
from tests.support.tls import certificate


class Client:
    """The other side."""

    def __init__(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.received, self.said = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self.received, self.said)

    def greet(self) -> bytes:
        with pytest.raises(ssl.SSLWantReadError):
            self.session.do_handshake()
        return self.said.read()

    def says(self, data: bytes) -> bytes:
        """In records of at most 16 KB."""
        for start in range(0, len(data), 16_384):
            self.session.write(data[start : start + 16_384])
        return self.said.read()

    def hears(self, records: bytes) -> bytes:
        self.received.write(records)
        heard = []
        while self.received.pending:
            heard.append(self.session.read(16_384))
        return b"".join(heard)


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*certificate(tmp_path))
    return made


@pytest.fixture
def both(context: ssl.SSLContext) -> tuple[TlsSession, Client]:
    """After the handshake."""
    server, client = TlsSession(TlsServer(context)), Client()
    assert server.decrypted(client.greet()) == b""
    client.received.write(server.to_send())
    client.session.do_handshake()
    assert server.decrypted(client.said.read()) == b""
    with pytest.raises(ssl.SSLWantReadError):  # it is told of tickets, and nothing else
        client.hears(server.to_send())
    return server, client


def test_both_hear_what_the_other_says(both: tuple[TlsSession, Client]) -> None:
    server, client = both
    said = bytes(range(256)) * 300
    assert server.decrypted(client.says(said)) == said
    records = server.encrypted(said)
    assert client.hears(records) == said


def test_what_comes_byte_by_byte_is_heard(both: tuple[TlsSession, Client]) -> None:
    server, client = both
    sent = client.says(b"GET /")
    assert [server.decrypted(sent[place : place + 1]) for place in range(len(sent))][-1] == b"GET /"


def test_a_request_beside_the_end_of_the_handshake_is_heard(context: ssl.SSLContext) -> None:
    server, client = TlsSession(TlsServer(context)), Client()
    server.decrypted(client.greet())
    client.received.write(server.to_send())
    client.session.do_handshake()
    assert server.decrypted(client.says(b"GET /")) == b"GET /"


def test_the_client_hears_our_end(both: tuple[TlsSession, Client]) -> None:
    server, client = both
    assert client.hears(server.end()) == b""
    assert server.end() == b""
    with pytest.raises(ssl.SSLError):
        server.encrypted(b"more")


def test_the_end_of_the_client_is_heard_behind_what_it_said(both: tuple[TlsSession, Client]) -> None:
    server, client = both
    said = client.says(b"GET /")
    with pytest.raises(ssl.SSLWantReadError):  # for our end
        client.session.unwrap()
    assert not server.ended
    assert server.decrypted(said + client.said.read()) == b"GET /"
    assert server.ended


def test_sessions_share_buffers_and_nothing_else(context: ssl.SSLContext) -> None:
    """While one is in the middle of its handshake, of a record or of a failure."""
    shared = TlsServer(context)
    one, two, failing = TlsSession(shared), TlsSession(shared), TlsSession(shared)
    client_of_one, client_of_two = Client(), Client()
    one.decrypted(client_of_one.greet())
    two.decrypted(client_of_two.greet())
    with pytest.raises(ssl.SSLError):
        failing.decrypted(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    for session, client in ((one, client_of_one), (two, client_of_two)):
        client.received.write(session.to_send())
        client.session.do_handshake()
    half = client_of_one.says(b"of one")
    assert one.decrypted(half[:-5]) == b""
    assert two.decrypted(client_of_two.says(b"of two")) == b"of two"
    assert one.decrypted(half[-5:]) == b"of one"
    client_of_one.received.write(one.to_send())
    assert client_of_one.hears(one.encrypted(b"to one")) == b"to one"


def test_what_is_no_tls_is_refused(context: ssl.SSLContext) -> None:
    server = TlsSession(TlsServer(context))
    with pytest.raises(ssl.SSLError):
        server.decrypted(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert server.end() == server.to_send() == b""
