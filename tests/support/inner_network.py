"""Run in new user, network and mount namespaces: the guarded client beside a real DNS server that lies.

Another network namespace is "the internet": a DNS server at 9.9.9.9 and an HTTPS server at 93.184.216.34. This one has
listeners on loopback and inner addresses, and the proxies of the environment point to them. Prints what happened.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from imgsvc.access.guarded_client import GuardedClient, NotCalled
from tests.support.tls import certificate

DNS, PUBLIC = "9.9.9.9", "93.184.216.34"
INNER = ("127.0.0.1", "10.1.2.3", "192.168.9.9", "169.254.169.254", "100.64.9.9", "::1", "fd00::99")
A, CNAME, AAAA = 1, 5, 28
CLONE_NEWNET = 0x40000000
NAMES = ("public.test", "rebinding.test", "mixed.test", "alias.test", "mapped.test", "wrong-name.test", "nowhere.test")


def sh(*words: str) -> None:
    subprocess.run(words, check=True)


def encoded(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


class LyingServer:
    """Answers A, AAAA and CNAME with a time to live of 0."""

    def __init__(self) -> None:
        self.questions: Counter[str] = Counter()

    def records(self, name: str, kind: int) -> list[tuple[int, bytes]] | None:
        if kind == A:
            self.questions[name] += 1
        inner = [(A, ip_address("10.1.2.3").packed)] if kind == A else []
        fixed: dict[str, dict[int, list[tuple[int, bytes]]]] = {
            "public.test": {A: [(A, ip_address(PUBLIC).packed)]},
            "wrong-name.test": {A: [(A, ip_address(PUBLIC).packed)]},
            "mixed.test": {A: [(A, ip_address(PUBLIC).packed)], AAAA: [(AAAA, ip_address("::1").packed)]},
            "mapped.test": {AAAA: [(AAAA, ip_address("::ffff:10.1.2.3").packed)]},
            "alias.test": {kind: [(CNAME, encoded("inner.corp.test")), *inner]},
            "inner.corp.test": {kind: inner},
        }
        if name == "rebinding.test":
            address = PUBLIC if self.questions[name] == 1 else "127.0.0.1"
            return [(A, ip_address(address).packed)] if kind == A else []
        return fixed[name].get(kind, []) if name in fixed else None

    def answer(self, query: bytes) -> bytes:
        parts, place = [], 12
        while query[place]:
            parts.append(query[place + 1 : place + 1 + query[place]].decode())
            place += 1 + query[place]
        name, kind = ".".join(parts).lower(), struct.unpack(">H", query[place + 1 : place + 3])[0]
        found = self.records(name, kind)
        flags = 0x8580 if found is not None else 0x8583
        head = query[:2] + struct.pack(">HHHHH", flags, 1, len(found or ()), 0, 0)
        body, owner = b"", encoded(name)
        for record, data in found or ():
            body += owner + struct.pack(">HHIH", record, 1, 0, len(data)) + data
            owner = data if record == CNAME else owner
        return head + query[12 : place + 5] + body

    def serve(self, server: socket.socket) -> None:
        while True:
            query, sender = server.recvfrom(2048)
            server.sendto(self.answer(query), sender)


def serve_https(folder: Path, server: socket.socket) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    while True:
        connection, _ = server.accept()
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(65_536)
            secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def internet(folder: Path, ready: threading.Event, go: threading.Event, dns: LyingServer) -> None:
    """A thread whose network namespace is another one; its sockets stay there, whichever thread uses them."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    (folder / "tid").write_text(str(threading.get_native_id()))
    ready.set()
    go.wait()
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "link", "set", "told1", "up")
    sh("ip", "addr", "add", f"{DNS}/32", "dev", "told1")
    sh("ip", "addr", "add", f"{PUBLIC}/32", "dev", "told1")
    sh("ip", "route", "add", "default", "dev", "told1")
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind((DNS, 53))
    web = socket.create_server((PUBLIC, 443))
    threading.Thread(target=dns.serve, args=(names,), daemon=True).start()
    threading.Thread(target=serve_https, args=(folder, web), daemon=True).start()
    (folder / "serving").touch()
    ready.set()


def set_up(folder: Path, dns: LyingServer) -> list[socket.socket]:
    certificate(folder, "public.test", "rebinding.test")
    ready, go = threading.Event(), threading.Event()
    threading.Thread(target=internet, args=(folder, ready, go, dns), daemon=True).start()
    ready.wait(10)
    ready.clear()
    sh("ip", "link", "add", "told0", "type", "veth", "peer", "name", "told1", "netns", (folder / "tid").read_text())
    go.set()
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "link", "set", "told0", "up")
    sh("ip", "addr", "add", "11.0.0.2/32", "dev", "told0")
    sh("ip", "route", "add", "default", "dev", "told0")
    for address in INNER:
        if not ip_address(address).is_loopback:
            sh("ip", "addr", "add", address, "dev", "lo", *(("nodad",) if ":" in address else ()))
    ready.wait(10)
    (folder / "resolv.conf").write_text(f"nameserver {DNS}\noptions timeout:1 attempts:1\n")
    sh("mount", "--bind", str(folder / "resolv.conf"), "/etc/resolv.conf")
    found = []
    for address in INNER:
        for port in (443, 3128):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            one = socket.create_server((address, port), family=family)
            one.setblocking(False)
            found.append(one)
    return found


def connections(listeners: list[socket.socket]) -> list[str]:
    seen = []
    for one in listeners:
        with contextlib.suppress(BlockingIOError):
            one.accept()[0].close()
            address, port = one.getsockname()[:2]
            seen.append(f"{address}:{port}")
    return seen


async def called(client: GuardedClient, name: str) -> str:
    try:
        async with client.send("GET", f"https://{name}/", headers={}, seconds=10) as answer:
            return str(answer.status)
    except NotCalled as error:
        return error.reason


async def main(folder: Path) -> dict[str, Any]:
    dns = LyingServer()
    listeners = set_up(folder, dns)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ[name] = os.environ[name.lower()] = "http://127.0.0.1:3128"
    client = GuardedClient(make_context=lambda: ssl.create_default_context(cafile=folder / "cert.pem"))
    found: dict[str, Any] = {name: await called(client, name) for name in NAMES}
    found["rebinding.test again"] = await called(client, "rebinding.test")
    found["inner connections"] = connections(listeners)
    found["questions"] = dns.questions
    socket.create_connection(("127.0.0.1", 443)).close()
    found["control"] = connections(listeners)
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
