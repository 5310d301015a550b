"""The guarded client: what it refuses to call, and how little an answer can do."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from imgsvc.access import guarded_client
from imgsvc.access.guarded_client import Answer, GuardedClient, NotCalled, Target, own_addresses
from imgsvc.access.inner_addresses import is_public
from tests.support.tcp_server import Talk, serving

ROOT = Path(__file__).parents[2]

INNER = """
127.0.0.1 127.1 127.255.255.254 2130706433 0x7f000001 0x7f.1 0177.0.0.1 017700000001 0 0.0.0.0 0x0 127.0.0.1.
localhost localhost. LOCALHOST localhost.localdomain
10.0.0.1 10.255.255.255 0xa000001 172.16.0.1 172.31.255.255 192.168.0.1 192.168.1 3232235521
169.254.169.254 2852039166 0xa9fea9fe 100.64.0.1 100.127.255.255 192.0.0.1 192.0.2.1 192.88.99.1 198.18.0.1 198.51.100.1
203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
[::1] [::] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:10.0.0.1] [::127.0.0.1] [::ffff:0.0.0.0]
[64:ff9b::127.0.0.1] [64:ff9b::a00:1] [64:ff9b:1::7f00:1] [64:ff9b:1:7f00:0:100::] [64:ff9b:1:a:0:1::8.8.8.8]
[2002:7f00:1::] [2002:a00:1::1] [2001:0:7f00:1::] [2001:0:808:808::f5ff:fffe] [2001:db8::1] [3fff::1]
[fc00::1] [fd00:ec2::254] [fe80::1] [fec0::1] [ff02::1] [100::1] [4000::1] [::ffff:169.254.169.254]
１２７.0.0.1 ①②⑦.0.0.1 ⓛocalhost
""".split()  # noqa: SIM905, a list by kind


def answering(*pieces: bytes, seen: list[bytes] | None = None) -> Talk:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return serve


def resolving(*addresses: str) -> tuple[guarded_client.Resolve, list[str]]:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return addresses

    return resolve, asked


async def get(client: GuardedClient, url: str, seconds: float = 5) -> tuple[int, bytes]:
    async with client.send("GET", url, headers={}, seconds=seconds) as answer:
        return answer.status, b"".join([chunk async for chunk in answer.chunks()])


async def refused(client: GuardedClient, url: str, seconds: float = 5) -> NotCalled:
    with pytest.raises(NotCalled) as found:
        await get(client, url, seconds)
    return found.value


def listeners(port: int) -> list[socket.socket]:
    """On every address of this machine: all the inner ones that lead to it lead here."""
    found = []
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        one = socket.socket(family, socket.SOCK_STREAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((address, port))
        port = one.getsockname()[1]
        one.listen()
        one.setblocking(False)
        found.append(one)
    return found


def assert_unused(found: list[socket.socket]) -> None:
    for one in found:
        with one, pytest.raises(BlockingIOError):
            one.accept()


async def test_no_spelling_of_an_inner_address_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(INNER) >= 40
    found = listeners(0)
    port = found[0].getsockname()[1]
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    client = GuardedClient()
    for host in INNER:
        error = await refused(client, f"https://{host}:{port}/hook")
        assert error.reason in ("address", "name", "url"), (host, str(error))
    own = [str(one) for one in await asyncio.to_thread(own_addresses)]
    for address in own:
        shown = f"[{address}]" if ":" in address else address
        assert (await refused(client, f"https://{shown}:{port}/")).reason == "address"
    assert_unused(found)


async def test_a_spelling_that_the_test_calls_inner_is_reached_without_the_guard() -> None:
    """Else the listeners of the test above would prove nothing."""
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")) as port:
        for host in ("127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "[::ffff:127.0.0.1]"):
            if host == "localhost" and socket.getaddrinfo(host, port)[0][0] == socket.AF_INET6:
                continue
            assert await get(GuardedClient(allow_private=True), f"http://{host}:{port}/") == (200, b"ok")


@pytest.mark.parametrize(
    "addresses",
    [
        ("93.184.216.34", "127.0.0.1"),
        ("127.0.0.1", "93.184.216.34"),
        ("93.184.216.34", "::1"),
        ("2606:4700::1111", "fd00::1"),
        ("93.184.216.34", "::ffff:10.0.0.1"),
        ("93.184.216.34", "fe80::1%eth0"),
        (),
    ],
)
async def test_one_inner_address_in_the_answer_refuses_all(addresses: tuple[str, ...]) -> None:
    resolve, asked = resolving(*addresses)
    error = await refused(GuardedClient(resolve=resolve), "https://hooks.example.org/")
    assert error.reason == ("address" if addresses else "name")
    assert asked == ["hooks.example.org"]


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]
)
def test_public(address: str) -> None:
    assert is_public(ip_address(address))


async def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is resolved once; connecting never resolves it again."""
    seen: list[bytes] = []
    async with serving(answering(b"HTTP/1.1 204 No Content\r\n\r\n", seen=seen)) as port:
        resolve, asked = resolving("127.0.0.1")
        client = GuardedClient(allow_private=True, resolve=resolve)
        assert await get(client, f"http://hooks.invalid:{port}/a b?c".replace(" ", "%20")) == (204, b"")
    assert asked == ["hooks.invalid"]
    assert f"Host: hooks.invalid:{port}\r\n".encode() in seen[0]
    assert seen[0].startswith(b"GET /a%20b?c HTTP/1.1\r\n")
    assert b"Accept-Encoding: identity\r\n" in seen[0]
    assert b"cookie" not in seen[0].lower()


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/",
        "ftp://hooks.example.org/",
        "file:///etc/passwd",
        "//hooks.example.org/",
        "hooks.example.org",
        "https:///path",
        "https://user@hooks.example.org/",
        "https://user:secret@hooks.example.org/",
        "https://@hooks.example.org/",
        "https://hooks.example.org:0/",
        "https://hooks.example.org:65536/",
        "https://hooks.example.org:x/",
        "https://hooks.exa\tmple.org/",
        "https://hooks.example.org\\@127.0.0.1/",
        "https://hooks.example.org /",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://a_b!c/",
        "https://example.org/" + "a" * 2048,
    ],
)
async def test_refused_urls(url: str) -> None:
    resolve, asked = resolving("93.184.216.34")
    assert (await refused(GuardedClient(resolve=resolve), url)).reason == "url"
    assert asked == []


def test_the_parts_of_a_url() -> None:
    target = Target.of("https://Bücher.example:8443/a/ü?x=1&y=ü#part")
    assert (target.host, target.port, target.authority) == ("xn--bcher-kva.example", 8443, "xn--bcher-kva.example:8443")
    assert target.path == "/a/%C3%BC?x=1&y=%C3%BC"


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ((b"HTTP/1.1 200 OK\r\n", b"X: " + b"x" * 20_000, b"\r\n\r\n"), "too_large"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,), "too_large"),
        ((b"SSH-2.0-OpenSSH_9.2\r\n",), "answer"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",), "answer"),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",), "answer"),
        ((), "answer"),
    ],
)
async def test_bad_answers(pieces: tuple[bytes, ...], reason: str) -> None:
    async with serving(answering(*pieces)) as port:
        assert (await refused(GuardedClient(allow_private=True), f"http://127.0.0.1:{port}/")).reason == reason


async def test_no_redirect_is_followed() -> None:
    seen: list[bytes] = []
    moved = b"HTTP/1.1 302 Found\r\nLocation: /other\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    async with serving(answering(moved, seen=seen)) as port:
        client = GuardedClient(allow_private=True)
        assert await get(client, f"http://127.0.0.1:{port}/") == (302, b"")
        assert await get(client, f"http://127.0.0.1:{port}/again") == (302, b"")
    assert [head.split()[1] for head in seen] == [b"/", b"/again"]
    assert b"ookie" not in seen[1]


async def test_time_is_limited_for_head_and_body_together() -> None:
    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(), 0.02)
                return

    async with serving(dripping) as port:
        began = time.monotonic()
        error = await refused(GuardedClient(allow_private=True), f"http://127.0.0.1:{port}/", seconds=0.3)
        assert error.reason == "timeout"
        assert time.monotonic() - began < 3


async def test_a_dropped_body_has_a_limit() -> None:
    async def drop(answer: Answer) -> None:
        await answer.drop(1000)

    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 5000)) as port:
        client = GuardedClient(allow_private=True)
        with pytest.raises(NotCalled, match="more than 1000 bytes"):
            async with client.send("POST", f"http://127.0.0.1:{port}/", headers={}, body=b"{}", seconds=5) as answer:
                await drop(answer)


async def test_a_closed_port() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert (await refused(GuardedClient(allow_private=True), f"http://127.0.0.1:{port}/")).reason == "connect"


async def test_a_plain_server_is_no_tls() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(plain) as port:
        assert (await refused(GuardedClient(allow_private=True), f"https://127.0.0.1:{port}/")).reason == "tls"


def _namespaces() -> bool:
    return subprocess.run(["unshare", "-rnm", "ip", "link"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _namespaces(), reason="needs network namespaces and iproute2")
def test_with_a_real_dns_server(tmp_path: Path) -> None:
    """In a network of its own: a DNS server, a public web server, and listeners on inner addresses."""
    ran = subprocess.run(
        ["unshare", "-rnm", sys.executable, "-W", "error", "-m", "tests.support.inner_network", str(tmp_path)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["public.test"] == "200"
    assert found["rebinding.test"] == "200"  # its first address was public, and the one that was called
    assert found["rebinding.test again"] == "address"  # by now the name leads to 127.0.0.1
    assert found["mixed.test"] == "address"
    assert found["alias.test"] == "address"
    assert found["mapped.test"] == "address"
    assert found["wrong-name.test"] == "tls"
    assert found["nowhere.test"] == "name"
    assert found["questions"]["rebinding.test"] == 2  # A, once for each call
    assert found["inner connections"] == []
    assert found["control"] == ["127.0.0.1:443"]  # the listeners do listen
