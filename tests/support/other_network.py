"""A network namespace beside this one, in which a process can be cut off: its packets are dropped, both ways."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


def possible() -> bool:
    """Whether this user may make one, and has the commands."""
    if os.getuid():
        return False
    check = ["unshare", "-n", "sh", "-c", "ip link && iptables -I INPUT -i lo -j DROP"]
    try:
        return subprocess.run(check, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@dataclass(frozen=True, slots=True)
class OtherNetwork:
    """`here` is this side's address, `inside` the command that runs another in the namespace."""

    here: str
    inside: Sequence[str]

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        rule = ("INPUT", "-i", "inner", "-j", "DROP")
        _run(*self.inside, "iptables", "-I", *rule)
        _run(*self.inside, "iptables", "-I", "OUTPUT", "-o", "inner", "-j", "DROP")
        try:
            yield
        finally:
            _run(*self.inside, "iptables", "-D", *rule)
            _run(*self.inside, "iptables", "-D", "OUTPUT", "-o", "inner", "-j", "DROP")


@contextmanager
def other_network() -> Iterator[OtherNetwork]:
    number = os.getpid() % 250
    name, outer, here, there = f"imgsvc{number}", f"imgsvc{number}", f"10.77.{number}.1", f"10.77.{number}.2"
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", outer, "type", "veth", "peer", "name", "inner", "netns", name)
        _run("ip", "addr", "add", f"{here}/30", "dev", outer)
        _run("ip", "link", "set", outer, "up")
        inside = ("ip", "netns", "exec", name)
        _run(*inside, "ip", "addr", "add", f"{there}/30", "dev", "inner")
        _run(*inside, "ip", "link", "set", "inner", "up")
        yield OtherNetwork(here, inside)
    finally:
        _run("ip", "netns", "del", name)


def _run(*words: str) -> None:
    subprocess.run(words, check=True)
